"""What one rank holds between two passes: weights, adapters, gradients and optimizer states, in bytes."""

from __future__ import annotations

import msgspec

from dpo_profiles.plan.sharding import Parameter
from dpo_profiles.plan.tensors import (
    linear_parameters,
    quantization_state_bytes,
    trained_parameters,
    unquantized_parameters,
)
from dpo_profiles.plan.workload import Workload

BLOCK_8BIT = 256
SMALLEST_8BIT_ELEMENTS = 4096
"""bitsandbytes keeps 32-bit moments for parameters below this (`min_8bit_size`), blocks of 256 above."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's standing memory. Weights and adapters by part; their sum is the component."""

    weights: dict[str, int]
    whole_weights: dict[str, int]
    """On one device that shards nothing."""
    reference: int
    """A second, frozen model, where there is no adapter."""
    adapters: int
    whole_adapters: int
    gradients: int
    """While the backward pass runs and until the update."""
    step_gradients: int
    """At the update itself."""
    standing_gradients: int
    """Kept even when no backward pass runs."""
    optimizer: int


def standing(workload: Workload) -> Standing:
    """One rank's standing memory on its device; shards are counted with their padding, so that all ranks are equal.

    Source, optimizer and gradients: torch.optim.AdamW keeps two moments in the parameter's type;
    DeepSpeed keeps a float32 master and two float32 moments of each shard, one buffer of gradients in
    the arithmetic's type for all trainable shards, and float32 gradients at the update
    (runtime/zero/stage3.py, `_create_fp32_partitions`, `grad_partitions_flat_buffer`).

    Source, offloading: FSDP2 puts every shard into the host's memory and its gradient after it, so that the
    optimizer computes there (torch's `_fsdp_param.py`, `_init_sharded_param`, and `_fsdp_collectives.py`,
    `foreach_reduce`). DeepSpeed's `offload_param` leaves on the device what it keeps whole: the whole copies and,
    where nothing trains them, their shards too (`partition_parameters.py`, `_partition_param`: `ds_persist`);
    gradients and optimizer follow `offload_optimizer` alone (`stage3.py`: `self.device`). bitsandbytes' absmax
    is no parameter, and stays.

    Raises:
        ProfileError: a target that the model does not have.
    """
    trained = trained_parameters(workload)
    elements = sum(parameter.elements * parameter.count for parameter in trained)
    sharded = workload.sharding.shards and not workload.replicated_adapters
    shard = workload.sharding.shard_elements(trained) if sharded else elements
    updated = 0 if workload.offloads_optimizer else shard
    gradients = updated * workload.adapter_bytes
    widest = max(workload.adapter_bytes, workload.master_bytes)
    zero3 = workload.zero3 is not None
    weights = _weights(workload)
    return Standing(
        weights=weights,
        whole_weights=_whole_weights(workload),
        reference=sum(weights.values()) if workload.full and workload.adapter_copies > 1 else 0,
        adapters=0 if workload.full else _adapters(workload, trained, shard * workload.adapter_bytes),
        whole_adapters=0 if workload.full else workload.adapter_copies * elements * widest,
        gradients=gradients,
        step_gradients=gradients + (4 * updated if zero3 else 0),
        standing_gradients=gradients if zero3 or workload.gradients_stay else 0,
        optimizer=(_moments(workload, trained) if updated else 0) + workload.master_bytes * updated,
    )


def _adapters(workload: Workload, trained: list[Parameter], shard_bytes: int) -> int:
    """The policy's adapter, which is trained, and frozen copies of it."""
    sharding, frozen = workload.sharding, workload.adapter_copies - 1
    whole = sharding.persistent_bytes(trained)
    if not workload.offloads_parameters:
        return workload.adapter_copies * (shard_bytes + whole)
    return workload.adapter_copies * whole + frozen * sharding.shard_bytes(sharding.persistent(trained))


def _whole_weights(workload: Workload) -> dict[str, int]:
    return {
        "codes" if workload.quantized else "linears": sum(p.total_bytes for p in linear_parameters(workload)),
        "absmax": quantization_state_bytes(workload),
        "unquantized": sum(p.total_bytes for p in unquantized_parameters(workload)),
        "persistent": 0,
    }


def _weights(workload: Workload) -> dict[str, int]:
    """The base by part; "persistent" is what ZeRO-3 keeps whole, with the shards of it that stay behind."""
    if not workload.sharding.shards:
        return _whole_weights(workload)
    sharding, offloaded = workload.sharding, workload.offloads_parameters
    linears, rest = linear_parameters(workload), unquantized_parameters(workload)
    persistent = sharding.persistent_bytes([*linears, *rest])
    if offloaded and not workload.full:
        persistent += sharding.shard_bytes(sharding.persistent([*linears, *rest]))
    return {
        "codes" if workload.quantized else "linears": 0 if offloaded else sharding.shard_bytes(linears),
        "absmax": quantization_state_bytes(workload),
        "unquantized": 0 if offloaded else sharding.shard_bytes(rest),
        "persistent": persistent,
    }


def _moments(workload: Workload, trained: list[Parameter]) -> int:
    """AdamW's two moments; 8-bit ones come in blocks with a float32 scale each."""
    sharded = workload.sharding.shards and not workload.replicated_adapters
    moments = 0
    for parameter in trained:
        elements = workload.sharding.elements(parameter) if sharded else parameter.elements
        one = elements * workload.moment_bytes
        if workload.eight_bit_moments:
            small = elements < SMALLEST_8BIT_ELEMENTS
            one = 4 * elements if small else elements + 4 * -(-elements // BLOCK_8BIT)
        moments += 2 * one * parameter.count
    return moments
