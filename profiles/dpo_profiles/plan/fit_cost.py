"""The cost model of `--fit`: work for a token on each GPU, by arithmetic. It measures nothing and ranks no speed."""

from __future__ import annotations

from dpo_profiles.plan.standing import standing
from dpo_profiles.plan.workload import Workload

OPERATIONS_PER_PARAMETER = 2
"""Of one token through one weight: a product and a sum (arXiv 2001.08361, section 2.1)."""
GATHERS = 3
"""Passes of an update that gather a sharded base: reference, forward and backward; recomputing needs no other."""
OPERATIONS_PER_GATHERED_BYTE = 2_000
"""What an H100 computes while a byte arrives: 989e12 bfloat16 operations a second over 450e9 bytes a second, both
by NVIDIA's data sheet of the SXM card. An assumption for all cards and links."""
STATED = (
    "cost: operations for a token over GPUs, 1 is the profile's own settings; 2 for each active weight and pass "
    "(reference, policy, backward, and one more where checkpointing recomputes), and 2,000 for each byte of "
    "sharded weights that the token's micro-batch gathers; nothing was measured"
)
"""The model in words."""


def cost_of(workload: Workload) -> float:
    """Operations for one token, divided by the GPUs that share the batch."""
    ranks = workload.world_size
    return (_computed(workload) + OPERATIONS_PER_GATHERED_BYTE * _gathered_bytes(workload)) / ranks


def _computed(workload: Workload) -> float:
    """Operations of all passes over one token; a frozen base has no gradients of its weights."""
    passes = workload.adapter_copies + (2 if workload.full else 1) + (1 if workload.checkpointing else 0)
    return OPERATIONS_PER_PARAMETER * _active_weights(workload) * passes


def _active_weights(workload: Workload) -> int:
    """Weights that a token goes through: of experts those that the router takes."""
    model = workload.model
    head = model.vocab_size * model.hidden_size
    taken = (
        linear.weights * linear.layers * (model.experts_per_token if linear.copies > 1 else 1)
        for linear in model.linears
    )
    return sum(taken) + head


def _gathered_bytes(workload: Workload) -> float:
    """Bytes that one rank receives in an update, for each token of its micro-batch."""
    if not workload.sharding.shards:
        return 0.0
    whole = standing(workload).whole_weights
    sharded = sum(size for part, size in whole.items() if part != "absmax")
    others = (workload.world_size - 1) / workload.world_size
    return GATHERS * sharded * others / workload.tokens
