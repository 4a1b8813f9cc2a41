"""What comes and goes while a pass runs: checkpoints, one layer's working set, logits, gathered weights, buffers.

Rows are counted for each token; a hidden row is hidden_size elements of the arithmetic's type.
"""

from __future__ import annotations

from dpo_profiles.plan import calibration as fitted
from dpo_profiles.plan import passes
from dpo_profiles.plan.ledger import CHECKPOINTS, LAYER, LOGITS, Moment
from dpo_profiles.plan.passes import HEAD_TILE_TOKENS, HEAD_TILE_VOCABULARY
from dpo_profiles.plan.standing import Standing
from dpo_profiles.plan.tensors import (
    adapter_parameters,
    embedding_bytes,
    largest_weight,
    layer_bytes,
    linear_parameters,
    trainable_parameters,
)
from dpo_profiles.plan.workload import Workload

SCORE_BYTES = 5
"""Of each score that eager attention keeps, 16 bit (arXiv 2205.05198, table 2: 5 a s^2 b bytes)."""
HEAD_TILE_BYTES = 6
"""Of each logit of a tile: the product in 16 bit and its float32 copy."""
FORWARD_ROWS = 6
"""Hidden rows of a layer without gradients: the residual, its norm, queries, attention, output, and their sum."""
FORWARD_MLP_ROWS = 3
FSDP2_LAYERS_IN_FLIGHT = 2
"""The layer that computes and the one that is prefetched."""

Parts = dict[str, int]


def forward(workload: Workload) -> Parts:
    """At the end of the forward pass, when the loss is computed, or in the last layer."""
    if workload.kernels == "torch":
        return _played(workload, played(workload, "forward"))
    tokens = workload.tokens
    hidden = workload.model.hidden_size * workload.compute_bytes
    figures = fitted.KERNELS[workload.kernels]
    return {
        "checkpoints": _kept_for_backward(workload),
        "layer": round(figures.head_rows * hidden * tokens),
        "logits": _logits(workload, tokens),
        "gathered_weights": _head_gathered(workload),
        **_standing_buffers(workload),
    }


def backward(workload: Workload) -> Parts:
    """In the backward pass of one layer: the last one, which is first, or under FSDP1 the first one."""
    tokens, model = workload.tokens, workload.model
    hidden = model.hidden_size * workload.compute_bytes
    retained = 0
    if workload.sharding.backend == "fsdp":
        layers = max(0, model.layers - fitted.LAYERS_NOT_RETAINED)
        retained = fitted.FSDP1_RETAINED_ROWS * layers * hidden * tokens
    replicated = 0
    if workload.replicated_adapters:
        replicated = fitted.REPLICATED_WORKSPACE_BYTES * trainable_parameters(workload)
    if workload.kernels == "torch":
        return {"retained": retained, **_played(workload, played(workload, "backward"))}
    return {
        "checkpoints": _kept_for_backward(workload),
        "retained": retained,
        "layer": _layer(workload, tokens),
        "gathered_weights": _gathered(workload),
        "adapter_workspace": replicated,
        **_standing_buffers(workload),
    }


def no_gradient(workload: Workload, tokens: int) -> Parts:
    """A forward pass that keeps nothing: the reference's, or an evaluation."""
    if workload.kernels == "torch":
        return _played(workload, played(workload, "eval", tokens))
    model = workload.model
    rows = FORWARD_ROWS * model.hidden_size + FORWARD_MLP_ROWS * model.intermediate_size
    return {
        "layer": rows * workload.compute_bytes * tokens + _scores(workload, tokens) + dequantized(workload),
        "logits": _logits(workload, tokens),
        "gathered_weights": _gathered(workload),
        **_standing_buffers(workload),
    }


def loading(workload: Workload, held: Standing) -> Parts:
    """While the base arrives: the largest tensor in the arithmetic's type, and one whole layer where it is sharded.

    Source: trainer/dpo_trainer/model/fill.py, which loads and shards layer by layer. Under FSDP1 Hugging Face's
    loader puts the whole base on each rank first (axolotl#1717).
    """
    model, item = workload.model, workload.compute_bytes
    largest = max(model.vocab_size * model.hidden_size, largest_weight(workload))
    parts = {"arriving": 0 if model.is_round else largest * item}
    if workload.loads_whole:
        parts["whole_base"] = sum(held.whole_weights.values()) - sum(held.weights.values())
    elif workload.sharding.shards:
        parts["whole_layer"] = layer_bytes(workload)
    return parts | {"workspace": workspace(workload)}


def updating(workload: Workload, held: Standing) -> Parts:
    """At the update: torch's AdamW takes the roots of all second moments at once (`_multi_tensor_adamw`).

    bitsandbytes updates in place, an update in the host's memory takes nothing here, and who measured elsewhere does
    not say which AdamW it was. Of a round figure nothing but what stands is counted.
    """
    roots = 0
    in_place = workload.eight_bit_moments or workload.kernels != "torch"
    if not (in_place or workload.model.is_round):
        moment, master = workload.moment_bytes, workload.master_bytes
        roots = held.optimizer * moment // (2 * moment + master)
    return {"update": roots, **_standing_buffers(workload)}


def saving(workload: Workload) -> Parts:
    """A sharded adapter is gathered to be written, in float32 at most, beside what an evaluation left gathered."""
    gathers = workload.sharding.shards and not workload.full
    gathered = 4 * trainable_parameters(workload) if gathers else 0
    if not workload.sharding.reshards:
        gathered += kept_gathered(workload)
    return {"gathered_weights": gathered, **_standing_buffers(workload)}


def workspace(workload: Workload) -> int:
    """cuBLAS's, on a card that is known."""
    return fitted.CUBLAS_WORKSPACE_BYTES.get(workload.gpu, 0)


def dequantized(workload: Workload) -> int:
    """The largest weight, which bitsandbytes brings back to the arithmetic's type for its product."""
    if not workload.quantized:
        return 0
    return max(linear.weights for linear in workload.model.layered) * workload.compute_bytes


def _standing_buffers(workload: Workload) -> Parts:
    """Buffers that stay: cuBLAS's, DeepSpeed's contiguous gradients, and DDP's buckets."""
    bucket = 0
    if workload.zero3 is not None and workload.zero3.contiguous_gradients:
        bucket = workload.zero3.reduce_bucket * workload.adapter_bytes
    if workload.sharding.backend == "ddp":
        bucket = trainable_parameters(workload) * workload.adapter_bytes
    return {"workspace": workspace(workload), "buckets": bucket}


def played(workload: Workload, phase: str, tokens: int = 0) -> Moment:
    """The moment of a pass that takes the most, gathered weights included, with torch's operators."""
    match phase:
        case "forward":
            moments = passes.forward(workload)
        case "backward":
            moments = passes.backward(workload)
        case _:
            moments = passes.without_gradient(workload, tokens)
    return max(moments, key=lambda moment: moment.size + _gathered_at(workload, moment))


def _played(workload: Workload, moment: Moment) -> Parts:
    return {
        **{part: moment.part(part) for part in (CHECKPOINTS, LAYER, LOGITS)},
        "gathered_weights": _gathered_at(workload, moment),
        **_standing_buffers(workload),
    }


def _gathered_at(workload: Workload, moment: Moment) -> int:
    return _head_gathered(workload) if moment.at_head else _gathered(workload)


def _kept_for_backward(workload: Workload) -> int:
    """Each layer's input with checkpointing; without it, all that its backward pass needs."""
    model, tokens = workload.model, workload.tokens
    if workload.checkpointing:
        return model.layers * model.hidden_size * workload.checkpoint_bytes * tokens
    saved, _ = _mlp_rows(workload)
    width = saved * workload.compute_bytes + _attention_bytes(workload)
    return model.layers * (round(width * tokens) + _scores(workload, tokens))


def _layer(workload: Workload, tokens: int) -> int:
    """One layer's working set in its backward pass.

    The peak is the gradient of the MLP's product, or the product that brings a quantised weight back,
    whichever is larger.
    """
    item = workload.compute_bytes
    saved, temporary = _mlp_rows(workload)
    weight = dequantized(workload)
    peak = max(temporary * item * tokens, temporary // fitted.MLP_TEMPORARY * item * tokens + weight)
    if not workload.checkpointing:
        return peak
    kept = saved * item + _attention_bytes(workload)
    return round(kept * tokens) + peak + _scores(workload, tokens)


def _mlp_rows(workload: Workload) -> tuple[int, int]:
    """Elements for each token that an MLP keeps, and those of its gradients at the peak."""
    inner = workload.model.intermediate_size
    saved = fitted.MLP_SAVED if workload.model.gated else fitted.PLAIN_MLP_SAVED
    experts = max(linear.copies for linear in workload.model.linears)
    # Experts go one after another: all keep their rows, and one at a time has gradients.
    return saved * inner, fitted.MLP_TEMPORARY * -(-inner // experts)


def _attention_bytes(workload: Workload) -> float:
    """Bytes for each token of a layer besides its MLP."""
    model, item = workload.model, workload.compute_bytes
    figures = fitted.KERNELS[workload.kernels]
    rows = figures.layer_rows + fitted.EXPERT_ROWS * model.experts_per_token
    rows += 0 if workload.quantized else figures.unquantized_rows
    keys = 2 * fitted.KEY_VALUE_SAVED * model.key_value_size
    log_sums = 4 * model.heads
    return rows * model.hidden_size * item + keys * item + log_sums + _adapter_inputs(workload)


def _adapter_inputs(workload: Workload) -> int:
    """Each adapted layer keeps its input in the type in which the adapter computes (`lora.Layer.forward`)."""
    width = sum(
        linear.in_features for target in workload.targets for linear in workload.model.targets(target)
        if linear.copies == 1
    )  # fmt: skip
    each = workload.adapter_input_bytes * (2 if workload.dropout else 1) + workload.dropout
    return width * each


def _scores(workload: Workload, tokens: int) -> int:
    if not workload.eager_attention:
        return 0
    return SCORE_BYTES * workload.model.heads * tokens * workload.length_tokens * workload.compute_bytes // 2


def _logits(workload: Workload, tokens: int) -> int:
    vocabulary = workload.model.vocab_size
    each = fitted.KERNELS[workload.kernels].logit_bytes
    if each:
        return round(each * tokens * vocabulary)
    return HEAD_TILE_BYTES * min(tokens, HEAD_TILE_TOKENS) * min(vocabulary, HEAD_TILE_VOCABULARY)


def largest_linear_bytes(workload: Workload) -> int:
    """One weight of a linear layer as it is stored."""
    return max(p.elements * p.item_bytes for p in linear_parameters(workload))


def kept_gathered(workload: Workload) -> int:
    """All that a pass gathers, where FSDP does not reshard after it: the base and the adapters in it.

    The reference's pass leaves it gathered for the policy's, which needs no other gather, and each layer is given
    back when its backward pass is over. Without an adapter the reference is a second model, and never is.
    """
    models = workload.adapter_copies if workload.full else 1
    base = sum(parameter.total_bytes for parameter in linear_parameters(workload)) + embedding_bytes(workload)
    adapters = 0 if workload.replicated_adapters else workload.adapter_copies
    return models * base + adapters * sum(p.total_bytes for p in adapter_parameters(workload))


def _head_gathered(workload: Workload) -> int:
    """Under FSDP1 the root stays gathered through both passes, and no layer is; ZeRO-3 keeps what it may."""
    if not workload.sharding.reshards:
        return kept_gathered(workload)
    match workload.sharding.backend:
        case "fsdp":
            return embedding_bytes(workload)
        case "fsdp2":
            return workload.model.vocab_size * workload.model.hidden_size * workload.compute_bytes
        case _:
            return _gathered(workload)


def _gathered(workload: Workload) -> int:
    """Weights gathered while a layer computes."""
    if not workload.sharding.reshards:
        return kept_gathered(workload)
    layer = layer_bytes(workload)
    match workload.sharding.backend:
        case "fsdp":
            return embedding_bytes(workload) + layer
        case "fsdp2":
            head = workload.model.vocab_size * workload.model.hidden_size * workload.compute_bytes
            return head + FSDP2_LAYERS_IN_FLIGHT * layer
        case "deepspeed-zero3":
            assert workload.zero3 is not None
            item = workload.storage_bytes if workload.quantized else workload.compute_bytes
            head = workload.model.vocab_size * workload.model.hidden_size * workload.compute_bytes
            # The limit counts stored elements, prefetched ones included; a weight that computes is above it.
            live = max(workload.zero3.max_live * item, largest_linear_bytes(workload))
            return min(workload.model.layers * layer, live) + head
        case _:
            return 0
