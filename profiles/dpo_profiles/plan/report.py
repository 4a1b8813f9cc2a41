"""The plan as users and programs read it: the JSON of `dpo-daemon plan --json`."""

from __future__ import annotations

import msgspec

PHASES = ("load", "reference", "forward", "backward", "step", "eval", "save")
POLICY_WEIGHTS = "policy_weights"
REFERENCE_WEIGHTS = "reference_weights"
ADAPTERS = "adapters"
GRADIENTS = "gradients"
OPTIMIZER_STATES = "optimizer_states"
COMPONENTS = (POLICY_WEIGHTS, REFERENCE_WEIGHTS, ADAPTERS, GRADIENTS, OPTIMIZER_STATES)


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


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes between two ends."""

    low: int
    high: int


class RankPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One rank, which is one GPU. All figures in bytes."""

    rank: int
    components: dict[str, int]
    """Largest use of each component over all phases."""
    phases: dict[str, dict[str, int]]
    """Phase to component; a component that is not there yet is 0."""
    resident_bytes: int
    """All components while the optimizer steps, from the second update on."""
    peak_allocated_bytes: int
    """Sum of the components in the phase that has most of them; activations are not in it."""
    nvml_bytes: Interval
    """From the components alone to the bound in `dpo_profiles.plan.bounds`."""
    headroom_bytes: int
    """Capacity minus the upper end, negative where it does not fit; 0 where the capacity is unknown."""


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
    """Whether activations, cache and context come from measurements."""
    advice: list[str]

    def to_json(self) -> bytes:
        """One JSON object."""
        return msgspec.json.encode(self)
