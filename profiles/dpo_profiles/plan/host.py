"""Host memory and disk: upper bounds."""

from __future__ import annotations

from dpo_profiles.plan.tensors import trainable_parameters
from dpo_profiles.plan.workload import Workload
from dpo_profiles.schema import Profile

PROCESS_BYTES = 3 << 30
"""Host memory of one training process besides weights: torch, CUDA and the data set; an assumption."""
EVENT_BYTES_PER_STEP = 4096
OPTIMIZER_CHECKPOINT_BYTES = 12
"""Per adapter parameter: float32 weight and two moments."""


def host_ram_bytes(profile: Profile, workload: Workload, peak: int, offloaded: int) -> int:
    """Of one host: each rank's process and the largest tensor on its way; on a CPU the model lives there too.

    Args:
        profile: for the ranks of a host.
        workload: the job.
        peak: of one rank on its device, in bytes.
        offloaded: bytes that one rank keeps in host memory instead of on its device.
    """
    arriving = workload.model.vocab_size * workload.model.hidden_size * workload.compute_bytes
    rank = PROCESS_BYTES + arriving + offloaded
    if not profile.hardware.gpu:
        rank += peak
    return profile.engine.gpus_per_node * rank


def disk_bytes(profile: Profile, workload: Workload) -> int:
    """Run directory: checkpoints that are kept and one being written, the final adapter, and events."""
    every, steps = profile.save.every_steps, profile.train.max_steps
    made = (steps // every if every else 0) + 1
    kept = min(made, profile.save.keep_last + 1) if profile.save.keep_last else made
    trainable = trainable_parameters(workload)
    checkpoints = kept * OPTIMIZER_CHECKPOINT_BYTES * trainable
    return checkpoints + 4 * trainable + EVENT_BYTES_PER_STEP * steps
