"""Formulas of a pass that is played through tensor by tensor (`dpo_profiles.plan.passes`)."""

from __future__ import annotations

from collections.abc import Iterable

from dpo_profiles.plan import transient
from dpo_profiles.plan.formula import Formula, n
from dpo_profiles.plan.ledger import CHECKPOINTS, LOGITS, Moment, Tensor
from dpo_profiles.plan.passes import HEAD_TILE_TOKENS, HEAD_TILE_VOCABULARY
from dpo_profiles.plan.workload import Workload


def played_part(workload: Workload, phase: str, tokens: int, part: str) -> Formula:
    """The tensors of a part at the moment of a phase that takes the most."""
    moment = transient.played(workload, phase, tokens)
    if part == LOGITS:
        return Formula(
            f"min(tokens {n(tokens)}, tile {n(HEAD_TILE_TOKENS)}) x tile {n(HEAD_TILE_VOCABULARY)} "
            f"x bytes {workload.compute_bytes}",
            "TRL's fused head computes logits tile by tile (_CHUNKED_LOGPROB_CHUNK_SIZE), and its Triton kernels "
            "work on them in place",
        )
    where = "the head" if moment.at_head else "a layer"
    source = {
        CHECKPOINTS: "each layer's input, which gradient checkpointing keeps (arXiv 1604.06174)"
        if workload.checkpointing
        else "what each earlier layer keeps for its backward pass",
    }.get(part, f"what lives in {where} when it takes the most")
    return Formula(_sum(moment, part), f"{source}; torch's operators, tensor by tensor (layer.py)")


def _sum(moment: Moment, part: str) -> str:
    """Tensors of each token, by the number of layers that hold them, and those that are whole."""
    tensors = [tensor for tensor in moment.tensors if tensor.part == part and tensor.width * tensor.count]
    terms = [
        f"tokens {n(moment.tokens)} x {f'layers {count} x ' if count > 1 else ''}({_terms(alike)})"
        for count in dict.fromkeys(tensor.count for tensor in tensors)
        if (alike := [tensor for tensor in tensors if tensor.per_token and tensor.count == count])
    ]
    whole = _terms(tensor for tensor in tensors if not tensor.per_token)
    return " + ".join([*terms, *([whole] if whole else [])]) or "0"


def _terms(tensors: Iterable[Tensor]) -> str:
    widths: dict[tuple[str, int], int] = {}
    for tensor in tensors:
        key = tensor.label, tensor.item
        widths[key] = widths.get(key, 0) + tensor.width
    return " + ".join(f"{label} {n(width)} x bytes {item}" for (label, item), width in widths.items())
