"""The cost model of `--fit`: work for a token on each GPU, by arithmetic. It measures nothing and ranks no speed."""

from __future__ import annotations

from dpo_profiles.plan.standing import standing
from dpo_profiles.plan.tensors import trainable_parameters
from dpo_profiles.plan.workload import Workload

OPERATIONS_PER_PARAMETER = 2
"""Of one token through one weight: a product and a sum (arXiv 2001.08361, section 2.1)."""
OPERATIONS_PER_GATHERED_BYTE = 2_000
"""What an H100 computes while a byte arrives: 989e12 bfloat16 operations a second over 450e9 bytes a second, both
by NVIDIA's data sheet of the SXM card. An assumption for all cards and links."""
OPERATIONS_PER_HOST_BYTE = 15_000
"""What an H100 computes while a byte comes from the host: 989e12 bfloat16 operations a second over 64e9 bytes a
second of PCIe 5.0 x 16 in one direction, by the same data sheet. An assumption for all cards and hosts."""
STATED = (
    "cost: operations for a token over GPUs, 1 is the profile's own settings; 2 for each active weight and pass "
    "(reference, policy, backward, and one more where checkpointing recomputes), 2,000 for each byte of sharded "
    "weights that the token's micro-batch gathers (in each of three passes, or once where layers stay gathered), "
    "and 15,000 for each byte between host and GPU; the update is not counted, and nothing was measured"
)
"""The model in words."""


def cost_of(workload: Workload) -> float:
    """Operations for one token, divided by the GPUs that share the batch."""
    moved = OPERATIONS_PER_GATHERED_BYTE * _gathered_bytes(workload)
    moved += OPERATIONS_PER_HOST_BYTE * _host_bytes(workload)
    return (_computed(workload) + moved / workload.tokens) / workload.world_size


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


def _sharded_bytes(workload: Workload) -> int:
    """Of the base, on all ranks together; absmax is on each."""
    if not workload.sharding.shards:
        return 0
    whole = standing(workload).whole_weights
    return sum(size for part, size in whole.items() if part != "absmax")


def _gathers(workload: Workload) -> int:
    """Of each layer for a micro-batch: in the reference's, the policy's and the backward pass; recomputing needs none.

    Where layers stay gathered, the first pass's serves the others (torch's `_fsdp_param_group.py`, `unshard`), and
    a second model, which the reference is where there is no adapter, has its own.
    """
    if workload.sharding.reshards:
        return workload.adapter_copies + 1
    return workload.adapter_copies if workload.full else 1


def _gathered_bytes(workload: Workload) -> float:
    """What one rank receives from the others for a micro-batch."""
    others = (workload.world_size - 1) / workload.world_size
    return _gathers(workload) * _sharded_bytes(workload) * others


def _host_bytes(workload: Workload) -> float:
    """What one rank moves between host and GPU for a micro-batch.

    With each gather its own part of the base comes from the host (`_fsdp_param.py`, `all_gather_inputs`; DeepSpeed's
    `partition_parameters.py`, `_all_gather_dtype`). Its gradients go there, and come once to be added up
    (`stage3.py`, `partition_grads`; FSDP adds them up there).
    """
    moved = 0.0
    if workload.offloads_parameters:
        moved += _gathers(workload) * _sharded_bytes(workload) / workload.world_size
    if workload.offloads_optimizer:
        moved += 2 * workload.adapter_bytes * trainable_parameters(workload) / workload.world_size
    return moved
