"""Formulas of what comes and goes while a pass runs (`dpo_profiles.plan.transient` has the arithmetic)."""

from __future__ import annotations

from collections.abc import Callable

from dpo_profiles.plan import calibration as fitted
from dpo_profiles.plan import transient
from dpo_profiles.plan.explain_passes import played_part
from dpo_profiles.plan.formula import Formula, n
from dpo_profiles.plan.ledger import CHECKPOINTS, LAYER, LOGITS
from dpo_profiles.plan.passes import HEAD_TILE_TOKENS, HEAD_TILE_VOCABULARY
from dpo_profiles.plan.standing import standing
from dpo_profiles.plan.tensors import largest_weight, linear_parameters, trainable_parameters
from dpo_profiles.plan.workload import Workload

NO_GRADIENT = ("reference", "eval")
"""Phases of a forward pass that keeps nothing."""


def tokens_of(workload: Workload, phase: str) -> int:
    """Tokens of one forward pass."""
    return workload.eval_tokens if phase == "eval" else workload.tokens


def at_head(workload: Workload, phase: str) -> bool:
    """Whether a pass takes the most in its head, and not in a layer."""
    if workload.kernels == "torch":
        return transient.played(workload, phase, tokens_of(workload, phase)).at_head
    return phase == "forward"


def _tokens(workload: Workload, phase: str) -> str:
    return f"tokens {n(tokens_of(workload, phase))}"


def _experts(workload: Workload) -> int:
    return max(linear.copies for linear in workload.model.linears)


def _adapter_input_width(workload: Workload) -> int:
    """Width of all inputs of a layer's adapters, those of experts left out."""
    linears = [linear for target in workload.targets for linear in workload.model.targets(target)]
    return sum(linear.in_features for linear in linears if linear.copies == 1)


def _saved_rows(workload: Workload) -> str:
    """Bytes for each token that one layer keeps for its backward pass."""
    model, item = workload.model, workload.compute_bytes
    figures = fitted.KERNELS[workload.kernels]
    rows = figures.layer_rows + fitted.EXPERT_ROWS * model.experts_per_token
    rows += 0 if workload.quantized else figures.unquantized_rows
    saved = fitted.MLP_SAVED if model.gated else fitted.PLAIN_MLP_SAVED
    each = workload.adapter_input_bytes * (2 if workload.dropout else 1) + workload.dropout
    return (
        f"MLP rows {saved} x width {n(model.intermediate_size)} x bytes {item} "
        f"+ rows {n(rows)} x hidden_size {n(model.hidden_size)} x bytes {item} "
        f"+ keys and values {2 * fitted.KEY_VALUE_SAVED} x width {n(model.key_value_size)} x bytes {item} "
        f"+ log-sums 4 x heads {model.heads} "
        f"+ adapter inputs {n(_adapter_input_width(workload))} x bytes {n(int(each))}"
    )


def _scores(workload: Workload, phase: str) -> str:
    """Attention scores, which only eager attention keeps."""
    if not workload.eager_attention:
        return ""
    return (
        f" + scores {transient.SCORE_BYTES} x heads {workload.model.heads} x {_tokens(workload, phase)} "
        f"x length {n(workload.length_tokens)} x bytes {workload.compute_bytes} / 2"
    )


def _weight(workload: Workload) -> str:
    """The largest weight in the arithmetic's type, where the base is quantised."""
    largest = max(linear.weights for linear in workload.model.layered)
    return f" + largest weight {n(largest)} x bytes {workload.compute_bytes}" if workload.quantized else ""


def _checkpoints(workload: Workload, phase: str) -> Formula:
    if workload.kernels == "torch":
        return played_part(workload, phase, tokens_of(workload, phase), CHECKPOINTS)
    model, tokens = workload.model, _tokens(workload, phase)
    if workload.checkpointing:
        return Formula(
            f"layers {model.layers} x hidden_size {n(model.hidden_size)} x bytes {workload.checkpoint_bytes} "
            f"x {tokens}",
            "each layer's input, which gradient checkpointing keeps (arXiv 1604.06174)",
        )
    return Formula(
        f"layers {model.layers} x ({tokens} x ({_saved_rows(workload)}){_scores(workload, phase)})",
        "without checkpointing each layer keeps what its backward pass needs; MLP counted in torch's operators, "
        "rows fitted (calibration.py)",
    )


def _layer(workload: Workload, phase: str) -> Formula:
    if workload.kernels == "torch":
        return played_part(workload, phase, tokens_of(workload, phase), LAYER)
    if phase == "forward":
        return _layer_at_the_loss(workload, phase)
    if phase in NO_GRADIENT:
        return _layer_without_gradient(workload, phase)
    model, item, tokens = workload.model, workload.compute_bytes, _tokens(workload, phase)
    width = -(-model.intermediate_size // _experts(workload))
    peak = (
        f"max(MLP gradients {fitted.MLP_TEMPORARY} x width {n(width)} x bytes {item} x {tokens}, "
        f"width {n(width)} x bytes {item} x {tokens}{_weight(workload)})"
    )
    source = "the larger of the MLP's gradients and of the product that brings a quantised weight back"
    if not workload.checkpointing:
        return Formula(peak, source)
    return Formula(
        f"{tokens} x ({_saved_rows(workload)}) + {peak}{_scores(workload, phase)}",
        f"one layer computed again, and {source}; MLP counted in torch's operators, rows fitted (calibration.py)",
    )


def _layer_at_the_loss(workload: Workload, phase: str) -> Formula:
    rows = fitted.KERNELS[workload.kernels].head_rows
    return Formula(
        f"rows {n(rows)} x hidden_size {n(workload.model.hidden_size)} x bytes {workload.compute_bytes} "
        f"x {_tokens(workload, phase)}",
        "the last layer's output, its norm and their copies; fitted (calibration.py)",
    )


def _layer_without_gradient(workload: Workload, phase: str) -> Formula:
    model = workload.model
    return Formula(
        f"(rows {transient.FORWARD_ROWS} x hidden_size {n(model.hidden_size)} "
        f"+ MLP rows {transient.FORWARD_MLP_ROWS} x width {n(model.intermediate_size)}) "
        f"x bytes {workload.compute_bytes} x {_tokens(workload, phase)}"
        f"{_scores(workload, phase)}{_weight(workload)}",
        "one layer that keeps nothing: residual, norm, queries, attention, output and their sum; "
        "and a quantised weight brought back",
    )


def _logits(workload: Workload, phase: str) -> Formula:
    if workload.kernels == "torch":
        return played_part(workload, phase, tokens_of(workload, phase), LOGITS)
    each, vocabulary = fitted.KERNELS[workload.kernels].logit_bytes, n(workload.model.vocab_size)
    tokens = _tokens(workload, phase)
    if each:
        return Formula(f"bytes {n(each)} x {tokens} x vocab_size {vocabulary}", "fitted (calibration.py)")
    return Formula(
        f"bytes {transient.HEAD_TILE_BYTES} x min({tokens}, tile {n(HEAD_TILE_TOKENS)}) "
        f"x min(vocab_size {vocabulary}, tile {n(HEAD_TILE_VOCABULARY)})",
        "TRL's fused head computes logits tile by tile (_CHUNKED_LOGPROB_CHUNK_SIZE): the product and its "
        "float32 copy",
    )


def _one_layer(workload: Workload) -> str:
    """One decoder layer as it is gathered."""
    stored = sum(parameter.total_bytes for parameter in linear_parameters(workload))
    return f"(stored bytes of linear layers {n(stored)} / layers {max(1, workload.model.layers)})"


def _head(workload: Workload) -> str:
    model = workload.model
    return f"vocab_size {n(model.vocab_size)} x hidden_size {n(model.hidden_size)} x bytes {workload.compute_bytes}"


def _kept_gathered(workload: Workload) -> str:
    """The base and the adapters in it, whole."""
    model, copies = workload.model, workload.adapter_copies
    stored = sum(parameter.total_bytes for parameter in linear_parameters(workload))
    base = (
        f"stored bytes of linear layers {n(stored)} + embedding and head {n(model.embedding_parameters)} "
        f"x bytes {workload.compute_bytes}"
    )
    if workload.full:
        return f"models {copies} x ({base})"
    if workload.replicated_adapters:
        return base
    return (
        f"{base} + adapters {copies} x trainable parameters {n(trainable_parameters(workload))} "
        f"x bytes {workload.adapter_bytes}"
    )


def _gathered(workload: Workload, phase: str) -> Formula:
    backend, layer, head = workload.sharding.backend, _one_layer(workload), _head(workload)
    if phase == "save":
        written = f"trainable parameters {n(trainable_parameters(workload))} x float32 4"
        left = "" if workload.sharding.reshards else f" + {_kept_gathered(workload)}"
        return Formula(
            written + left,
            "a sharded adapter is gathered to be written"
            + (", beside what an evaluation left gathered" if left else ""),
        )
    if not workload.sharding.reshards:
        return Formula(
            _kept_gathered(workload),
            "FSDP gives no layer back before its backward pass is over (fsdp_reshard_after_forward, or under "
            "FSDP1 SHARD_GRAD_OP)",
        )
    if backend == "fsdp":
        root = f"embedding and head {n(workload.model.embedding_parameters)} x bytes {workload.compute_bytes}"
        one = "" if at_head(workload, phase) else f" + {layer}"
        return Formula(root + one, "FSDP1's root stays gathered through both passes; measured")
    if backend == "fsdp2":
        layers = f" + layers in flight {transient.FSDP2_LAYERS_IN_FLIGHT} x {layer}"
        return Formula(
            head + ("" if at_head(workload, phase) else layers),
            "FSDP2 gathers the head, the layer that computes and the one that is prefetched",
        )
    if workload.zero3 is None:
        return Formula("0", "nothing is sharded")
    item = workload.storage_bytes if workload.quantized else workload.compute_bytes
    return Formula(
        f"min(layers {workload.model.layers} x {layer}, max(max_live {n(workload.zero3.max_live)} x bytes {item}, "
        f"largest weight {n(transient.largest_linear_bytes(workload))})) + {head}",
        "ZeRO-3 holds up to stage3_max_live_parameters stored elements, prefetched ones included, and the head",
    )


def _buckets(workload: Workload, phase: str) -> Formula:
    if workload.zero3 is not None and workload.zero3.contiguous_gradients:
        return Formula(
            f"reduce_bucket_size {n(workload.zero3.reduce_bucket)} x bytes {workload.adapter_bytes}",
            "DeepSpeed's contiguous gradients (stage3.py)",
        )
    if workload.sharding.backend == "ddp":
        return Formula(
            f"trainable parameters {n(trainable_parameters(workload))} x bytes {workload.adapter_bytes}",
            "DDP's buckets hold a copy of the gradients",
        )
    return Formula("0", "this engine keeps no bucket between passes")


def _workspace(workload: Workload, phase: str) -> Formula:
    size = fitted.CUBLAS_WORKSPACE_BYTES.get(workload.gpu, 0)
    return Formula(
        f"threads 2 x bytes {n(size // 2)}",
        "cuBLAS's workspace of the forward and the backward thread; measured on A100, by the source on H100",
    )


def _update(workload: Workload, phase: str) -> Formula:
    if workload.eight_bit_moments:
        return Formula("0", "bitsandbytes updates in place")
    moment, master = workload.moment_bytes, workload.master_bytes
    return Formula(
        f"optimizer states {n(standing(workload).optimizer)} x moment {moment} / {2 * moment + master}",
        "torch's AdamW takes the roots of all second moments at once (_multi_tensor_adamw)",
    )


def _retained(workload: Workload, phase: str) -> Formula:
    layers = max(0, workload.model.layers - fitted.LAYERS_NOT_RETAINED)
    return Formula(
        f"rows {fitted.FSDP1_RETAINED_ROWS} x layers {layers} x hidden_size {n(workload.model.hidden_size)} "
        f"x bytes {workload.compute_bytes} x {_tokens(workload, phase)}",
        "one row of each layer whose backward pass is over stays under FSDP1; measured, the mechanism is unknown",
    )


def _adapter_workspace(workload: Workload, phase: str) -> Formula:
    return Formula(
        f"trainable parameters {n(trainable_parameters(workload))} x bytes {fitted.REPLICATED_WORKSPACE_BYTES}",
        "an adapter that is whole beside a sharded base; measured",
    )


def _arriving(workload: Workload, phase: str) -> Formula:
    largest, model = largest_weight(workload), workload.model
    return Formula(
        f"max(vocab_size {n(model.vocab_size)} x hidden_size {n(model.hidden_size)}, largest weight {n(largest)}) "
        f"x bytes {workload.compute_bytes}",
        "the largest tensor on its way in (trainer/dpo_trainer/model/fill.py)",
    )


def _whole_base(workload: Workload, phase: str) -> Formula:
    held = standing(workload)
    whole, own = sum(held.whole_weights.values()), sum(held.weights.values())
    return Formula(
        f"whole base {n(whole)} - own share {n(own)}",
        "under FSDP1 Hugging Face's loader puts the whole base on each rank first (axolotl#1717)",
    )


def _whole_layer(workload: Workload, phase: str) -> Formula:
    return Formula(_one_layer(workload), "layers arrive whole and are sharded one by one (fill.py)")


ACTIVATION_PARTS: dict[str, Callable[[Workload, str], Formula]] = {
    "checkpoints": _checkpoints,
    "layer": _layer,
    "retained": _retained,
    "update": _update,
    "logits": _logits,
    "gathered_weights": _gathered,
    "adapter_workspace": _adapter_workspace,
    "workspace": _workspace,
    "buckets": _buckets,
    "arriving": _arriving,
    "whole_base": _whole_base,
    "whole_layer": _whole_layer,
}
"""Part of the activations to the formula that it has in a phase."""
