"""The plan as users and programs read it: the JSON of `dpo-daemon plan --json`."""

from __future__ import annotations

import msgspec

from dpo_profiles.plan.nvml import Interval

PHASES = ("load", "reference", "forward", "backward", "step", "eval", "save")
POLICY_WEIGHTS = "policy_weights"
REFERENCE_WEIGHTS = "reference_weights"
ADAPTERS = "adapters"
GRADIENTS = "gradients"
OPTIMIZER_STATES = "optimizer_states"
ACTIVATIONS = "activations"
"""All that is allocated while a pass runs and is none of the others: peak allocated minus resident."""
CACHE_FRAGMENTATION = "cache_fragmentation"
CONTEXT_COMMUNICATION = "context_communication"
ALLOCATED = (POLICY_WEIGHTS, REFERENCE_WEIGHTS, ADAPTERS, GRADIENTS, OPTIMIZER_STATES, ACTIVATIONS)
"""What torch allocates, phase by phase."""
COMPONENTS = (*ALLOCATED, CACHE_FRAGMENTATION, CONTEXT_COMMUNICATION)
"""The last two stand between torch's peak and what NVML shows."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """The card the plan is held against."""

    name: str
    capacity_bytes: int
    """0 is unknown."""


class ModelSize(msgspec.Struct, frozen=True, kw_only=True):
    """The model in numbers."""

    name: str
    parameters: int
    """Of the base, tied embeddings counted once."""
    trainable_parameters: int
    """Of one adapter."""


class RankPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One rank, which is one GPU. All figures in bytes."""

    rank: int
    components: dict[str, int]
    """Largest use of each component over all phases; the two beyond torch's peak with their upper ends."""
    phases: dict[str, dict[str, int]]
    """Phase to component; a component that is not there yet is 0."""
    resident_bytes: int
    """All components while the optimizer steps, from the second update on."""
    peak_allocated_bytes: int
    """Sum of the components in the phase that has most of them."""
    nvml_bytes: Interval
    """What NVML may show at the peak (`dpo_profiles.plan.nvml`)."""
    headroom_bytes: int
    """Capacity minus the upper end, negative where it does not fit; 0 where the capacity is unknown."""
    parts: dict[str, dict[str, int]]
    """Phase to `component.part`; the parts of a component add up to it."""
    cache_fragmentation_bytes: Interval
    """The allocator's cache and fragmentation."""
    context_communication_bytes: Interval
    """CUDA context and NCCL."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    profile: str
    world_size: int
    gpu: Gpu
    model: ModelSize
    per_gpu: list[RankPlan]
    host_ram_bytes: int
    """Of one host, for all its ranks."""
    disk_bytes: int
    """What the run directory grows to; the downloaded base model is not in it."""
    fits: bool
    """Whether the upper end stays within the capacity; true where the capacity is unknown."""
    calibrated: bool
    """Whether measurements of this kind of job and card are behind activations, cache and context."""
    advice: list[str]

    def to_json(self) -> bytes:
        """One JSON object."""
        return msgspec.json.encode(self)
