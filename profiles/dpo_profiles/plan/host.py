"""Host memory and disk: upper bounds."""

from __future__ import annotations

import msgspec

from dpo_profiles.plan.sharding import Parameter
from dpo_profiles.plan.standing import standing
from dpo_profiles.plan.tensors import (
    adapter_parameters,
    linear_parameters,
    trainable_parameters,
    unquantized_parameters,
)
from dpo_profiles.plan.workload import Workload
from dpo_profiles.schema import Profile

PROCESS_BYTES = 3 << 30
"""Host memory of one training process besides weights: torch, CUDA and the data set; an assumption."""
EVENT_BYTES_PER_STEP = 4096
OPTIMIZER_CHECKPOINT_BYTES = 12
"""Per adapter parameter: float32 weight and two moments."""


def host_ram_bytes(profile: Profile, workload: Workload, peak: int) -> int:
    """Of one host: each rank's process and the largest tensor on its way; on a CPU the model lives there too.

    Args:
        profile: for the ranks of a host.
        workload: the job.
        peak: of one rank on its device, in bytes.
    """
    arriving = workload.model.vocab_size * workload.model.hidden_size * workload.compute_bytes
    rank = PROCESS_BYTES + arriving + sum(offloaded_bytes(workload).values()) + _rounding(workload)
    if not profile.hardware.gpu:
        rank += peak
    return profile.engine.gpus_per_node * rank


def offloaded_bytes(workload: Workload) -> dict[str, int]:
    """What one rank keeps in the host's memory instead of on its device, by component.

    Gradients are those of the update, when DeepSpeed has them in float32 too.
    """
    there = standing(msgspec.structs.replace(workload, offload="none"))
    here = standing(workload)
    return {
        "policy_weights": sum(there.weights.values()) - sum(here.weights.values()),
        "reference_weights": there.reference - here.reference,
        "adapters": there.adapters - here.adapters,
        "gradients": there.step_gradients - here.step_gradients,
        "optimizer_states": there.optimizer - here.optimizer,
    }


def disk_bytes(profile: Profile, workload: Workload) -> int:
    """Run directory: checkpoints that are kept and one being written, the final adapter, and events."""
    every, steps = profile.save.every_steps, profile.train.max_steps
    made = (steps // every if every else 0) + 1
    kept = min(made, profile.save.keep_last + 1) if profile.save.keep_last else made
    trainable = trainable_parameters(workload)
    checkpoints = kept * OPTIMIZER_CHECKPOINT_BYTES * trainable
    return checkpoints + 4 * trainable + EVENT_BYTES_PER_STEP * steps


def _rounding(workload: Workload) -> int:
    """What page-locked memory takes beyond the shards in it.

    Both engines lock it by default, each shard by itself, and torch gives such memory out in powers of two
    (ATen/core/CachingHostAllocator.h, `allocate`).
    """
    if not workload.offloads_parameters:
        return 0
    parameters = [*linear_parameters(workload), *unquantized_parameters(workload)]
    if not workload.full:
        parameters += workload.adapter_copies * adapter_parameters(workload)
    return sum(_beyond(workload, parameter) for parameter in parameters)


def _beyond(workload: Workload, parameter: Parameter) -> int:
    size = workload.sharding.elements(parameter) * parameter.item_bytes
    return ((1 << max(0, size - 1).bit_length()) - size) * parameter.count
