"""The largest moment of each pass of our trainer, played through operator by operator.

The trainer runs Hugging Face's decoder layers in torch's own operators and TRL's fused head. PyTorch's memory
tracker holds these moments against the real operators (tests/trainer/test_planned_activations.py).
"""

from __future__ import annotations

import msgspec

from dpo_profiles.plan.layer import FLOAT32, Layer
from dpo_profiles.plan.layer_backward import TrainedLayer
from dpo_profiles.plan.ledger import CHECKPOINTS, LAYER, LOGITS, Ledger, Moment, Tensor
from dpo_profiles.plan.workload import Workload

HEAD_TILE_TOKENS = 4096
HEAD_TILE_VOCABULARY = 32_768
"""TRL's fused head computes logits in such tiles, whatever the vocabulary (`TOKEN_CHUNK_SIZE`,
`_CHUNKED_LOGPROB_CHUNK_SIZE`); its Triton kernels work on them in place."""


def without_gradient(workload: Workload, tokens: int) -> list[Moment]:
    """Of a pass that keeps nothing, the reference's or an evaluation: in a layer, and in the head."""
    if workload.model.is_round:
        return [Moment(tokens=tokens)]
    ledger = Ledger(tokens, [_mask(workload)])
    layer = Layer(workload, ledger, keeps=False)
    embedded = ledger.add(_row(workload, "embeddings"))
    left = layer.forward(ledger.add(_row(workload, "layer input")))
    ledger.drop(embedded)
    in_layer = ledger.moment(at_head=False)
    _head(ledger, layer, left, keeps=False)
    return [in_layer, ledger.moment(at_head=True)]


def forward(workload: Workload) -> list[Moment]:
    """Of the policy's forward pass: in its last layer, and in the head."""
    if workload.model.is_round:
        return [Moment(tokens=workload.tokens)]
    ledger = _before_last_layer(workload)
    layer = TrainedLayer(workload, ledger, first=workload.model.layers == 1 and not workload.full)
    # With checkpointing both are kept for the backward pass, and counted there.
    width = 0 if workload.checkpointing else workload.model.hidden_size
    embedded, entered = (ledger.put("layer input", width, workload.compute_bytes) for _ in range(2))
    left = layer.forward(entered)
    ledger.drop(embedded)
    in_layer = ledger.moment(at_head=False)
    _head(ledger, layer, left, keeps=True)
    return [in_layer, ledger.moment(at_head=True)]


def backward(workload: Workload) -> list[Moment]:
    """Of the policy's backward pass: in the head, and in the last layer, which is first."""
    if workload.model.is_round:
        return [Moment(tokens=workload.tokens)]
    ledger = _before_last_layer(workload)
    layer = TrainedLayer(workload, ledger, first=workload.model.layers == 1 and not workload.full)
    ledger.recording = False
    left = layer.forward(ledger.put("layer input", 0, workload.compute_bytes))
    ledger.recording = True
    layer.kept["final norm"] = [ledger.add(_row(workload, "norm inputs", item=FLOAT32))]
    ledger.drop(left)
    scored, tile = ledger.add(_row(workload, "scored positions")), ledger.add(_tile(workload, ledger))
    label = "gradient of scored positions"
    wide = ledger.add(_row(workload, label, item=FLOAT32))
    narrow = ledger.hold(wide) if layer.item == FLOAT32 else ledger.add(_row(workload, label))
    ledger.drop(wide, tile, scored)
    gradient = ledger.add(_row(workload, "gradient"))
    ledger.drop(narrow)
    gradient = layer.norm_backward("final norm", gradient)
    at_head = ledger.moment(at_head=True)
    ledger.drop(layer.backward(gradient))
    return [at_head, ledger.moment(at_head=False)]


def kept_by_layer(workload: Workload, *, first: bool = False) -> tuple[Tensor, ...]:
    """What one layer keeps for its backward pass, without checkpointing."""
    ledger = Ledger(workload.tokens)
    layer = Layer(workload, ledger, keeps=True, first=first)
    ledger.drop(layer.forward(ledger.add(_row(workload, "layer input"))))
    return ledger.live()


def _before_last_layer(workload: Workload) -> Ledger:
    """What is kept when the last layer begins."""
    layers, tensors = workload.model.layers, [_mask(workload)]
    if workload.checkpointing:
        item = workload.checkpoint_bytes
        tensors.append(_row(workload, "layer inputs", item=item, count=layers, part=CHECKPOINTS))
    # The embedding is frozen, so the first layer's input needs no gradient.
    elif layers > 1:
        for count, first in ((1, not workload.full), (layers - 2, False)):
            kept = kept_by_layer(workload, first=first) if count else ()
            tensors += [msgspec.structs.replace(tensor, count=count, part=CHECKPOINTS) for tensor in kept]
    return Ledger(workload.tokens, tensors)


def _head(ledger: Ledger, layer: Layer, entered: int, *, keeps: bool) -> None:
    """The final norm and the tile of logits; gives up the last layer's output."""
    layer.keeps = keeps
    normed = layer.norm("final norm", entered)
    ledger.drop(entered)
    scored, tile = (
        ledger.add(_row(layer.workload, "scored positions")),
        ledger.add(_tile(layer.workload, ledger)),
    )
    ledger.drop(normed, scored, tile)


def _mask(workload: Workload) -> Tensor:
    """Which tokens see which, made once for all layers."""
    item = workload.compute_bytes if workload.eager_attention else 1
    return Tensor(label="mask of all layers", width=workload.length_tokens, item=item)


def _tile(workload: Workload, ledger: Ledger) -> Tensor:
    rows = min(ledger.tokens, HEAD_TILE_TOKENS)
    return Tensor(
        label=f"tile {rows} x",
        width=rows * HEAD_TILE_VOCABULARY,
        item=workload.compute_bytes,
        per_token=False,
        part=LOGITS,
    )


def _row(workload: Workload, label: str, *, item: int = 0, count: int = 1, part: str = LAYER) -> Tensor:
    """A hidden row, of the arithmetic's type where no other is said."""
    item = item or workload.compute_bytes
    return Tensor(label=label, width=workload.model.hidden_size, item=item, count=count, part=part)
