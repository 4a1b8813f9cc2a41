"""What each rank uses against what was planned for it, component by component.

Like is held against like: standing components against the plan's update, where all of them are there; a peak
against the plan's phases that the measured one goes through. `dpo_telemetry.components` defines what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dpo_telemetry import components
from dpo_telemetry.events import Memory

PLAN_PHASES: dict[str, tuple[str, ...]] = {
    "load": ("load",),
    "reference": ("reference",),
    "train": ("reference", "forward", "backward", "step"),
    "eval": ("eval",),
    "save": ("save",),
}
"""The plan's phases that a measured one goes through: a step computes the reference too."""
STANDING_PHASES = {
    components.POLICY_WEIGHTS: "step",
    components.REFERENCE_WEIGHTS: "step",
    components.ADAPTERS: "step",
    components.GRADIENTS: "backward",
    components.OPTIMIZER_STATES: "step",
}
"""The plan's phase in which a standing component has its lasting size."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One figure against its plan, in bytes."""

    planned_low_bytes: int
    """The lower end of what is planned as an interval, else the same as the upper one."""
    planned_bytes: int
    measured_bytes: int
    difference_bytes: int
    """Measured minus planned; from an interval the distance to its nearer end, 0 inside."""


class RankBudget(msgspec.Struct, frozen=True, kw_only=True):
    """One rank; what was not measured is absent, as a GPU's memory on a CPU."""

    rank: int
    components: dict[str, Held]
    """Each component at its largest."""
    peaks: dict[str, Held]
    """Peak allocated by measured phase."""
    nvml: Held | None = None
    """What NVML shows of the rank's process at its largest."""


class _Ends(msgspec.Struct, frozen=True):
    low: int
    high: int


class _Planned(msgspec.Struct, frozen=True):
    """What of a rank's plan is held against measurement."""

    phases: dict[str, dict[str, int]]
    nvml_bytes: _Ends | None = None
    cache_fragmentation_bytes: _Ends | None = None
    context_communication_bytes: _Ends | None = None

    def standing(self, name: str) -> _Ends:
        """Of a component of real tensors."""
        size = self.phases.get(STANDING_PHASES.get(name, "step"), {}).get(name, 0)
        return _Ends(size, size)

    def peak(self, phase: str, memory: Memory) -> Held:
        """Peak allocated of a measured phase."""
        size = self._total(phase)
        return _held(_Ends(size, size), memory.peak_allocated_bytes or 0)

    def activations(self, phase: str, memory: Memory) -> Held:
        """The planned peak without the components that the measurement leaves out of its own."""
        size = max(0, self._total(phase) - sum(self.standing(name).high for name in memory.components))
        return _held(_Ends(size, size), _activations(memory))

    def _total(self, phase: str) -> int:
        return max((sum(self.phases.get(name, {}).values()) for name in PLAN_PHASES[phase]), default=0)


class _Measured:
    """One rank's figures in bytes, all but context and communication at their largest."""

    def __init__(self) -> None:
        self.standing: dict[str, int] = {}
        self.peaks: dict[str, Memory] = {}
        self.cache: int | None = None
        self.context: int | None = None
        self.process: int | None = None
        self._reserved: int | None = None
        self._peak = 0
        self._newest_process: int | None = None
        self._seen_together = False

    def take(self, memory: Memory) -> None:
        for name, size in memory.components.items():
            self.standing[name] = max(size, self.standing.get(name, 0))
        if memory.peak_allocated_bytes is not None and memory.components:
            known = self.peaks.get(memory.phase)
            if known is None or memory.peak_allocated_bytes > (known.peak_allocated_bytes or 0):
                self.peaks[memory.phase] = memory
        if memory.reserved_bytes is not None:
            self._reserved = memory.reserved_bytes
            if self._newest_process is not None and not self._seen_together:
                # What NVML shows was read first, all of it.
                self.context = max(self._newest_process - memory.reserved_bytes, 0)
            self._peak = max(self._peak, memory.allocated_bytes or 0, memory.peak_allocated_bytes or 0)
            if memory.allocated_bytes is not None:
                # What activations filled at the peak lies in the cache afterwards: it is theirs.
                self.cache = max(memory.reserved_bytes - self._peak, self.cache or 0)

    def take_nvml(self, process_bytes: int) -> None:
        self.process = max(process_bytes, self.process or 0)
        self._newest_process = process_bytes
        if self._reserved is not None:
            # The newest: a sample may fall between the growth of the cache and the rank's word of it.
            self.context = max(process_bytes - self._reserved, 0)
            self._seen_together = True


class Budget:
    """The plan of one attempt, and its ranks' measurements at their largest. Both may come in any order."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []
        self._ranks: dict[int, _Measured] = {}
        self.revision = 0
        """Grows with everything that was taken."""

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Take a plan; one of another shape plans nothing."""
        self.revision += 1
        try:
            self._planned = msgspec.convert(plan.get("per_gpu", []), list[_Planned], strict=False)
        except msgspec.ValidationError:
            self._planned = []

    @property
    def planned(self) -> bool:
        """Whether there is anything to hold measurements against."""
        return bool(self._planned)

    @property
    def measured(self) -> bool:
        """Whether any rank has measured anything."""
        return bool(self._ranks)

    def measure(self, rank: int, memory: Memory) -> None:
        """Take what a rank measured."""
        self.revision += 1
        self._ranks.setdefault(rank, _Measured()).take(memory)

    def see_process(self, rank: int, process_bytes: int) -> None:
        """Take what NVML shows of the rank's process."""
        self.revision += 1
        self._ranks.setdefault(rank, _Measured()).take_nvml(process_bytes)

    def rank(self, rank: int) -> RankBudget | None:
        """One rank against its plan; None where one of the two is not there."""
        measured = self._ranks.get(rank)
        if measured is None or not 0 <= rank < len(self._planned):
            return None
        planned = self._planned[rank]
        found = {name: _held(planned.standing(name), size) for name, size in measured.standing.items()}
        peaks = {phase: planned.peak(phase, event) for phase, event in measured.peaks.items()}
        if measured.peaks:
            phase, event = max(measured.peaks.items(), key=lambda item: _activations(item[1]))
            found[components.ACTIVATIONS] = planned.activations(phase, event)
        for name, size, ends in (
            (components.CACHE_FRAGMENTATION, measured.cache, planned.cache_fragmentation_bytes),
            (components.CONTEXT_COMMUNICATION, measured.context, planned.context_communication_bytes),
        ):
            if size is not None and ends is not None:
                found[name] = _held(ends, size)
        nvml = None
        if measured.process is not None and planned.nvml_bytes is not None:
            nvml = _held(planned.nvml_bytes, measured.process)
        return RankBudget(rank=rank, components=found, peaks=peaks, nvml=nvml)

    def planned_phases(self, rank: int) -> Mapping[str, Mapping[str, int]]:
        """Planned bytes of a rank by the plan's phase and component; empty without a plan."""
        return self._planned[rank].phases if 0 <= rank < len(self._planned) else {}

    def planned_nvml_bytes(self, rank: int) -> tuple[int, int] | None:
        """Lower and upper end of what NVML may show of a rank's process; None without a plan."""
        ends = self._planned[rank].nvml_bytes if 0 <= rank < len(self._planned) else None
        return (ends.low, ends.high) if ends is not None else None

    def ranks(self) -> list[RankBudget]:
        """All ranks that have a plan and a measurement, in their order."""
        return [held for rank in sorted(self._ranks) if (held := self.rank(rank)) is not None]


def measured_components(memory: Memory) -> dict[str, int]:
    """Bytes by component of one measurement: the real tensors, activations, and the allocator's cache."""
    found = dict(memory.components)
    if memory.peak_allocated_bytes is not None:
        found[components.ACTIVATIONS] = _activations(memory)
    if memory.reserved_bytes is not None and memory.allocated_bytes is not None:
        used = max(memory.allocated_bytes, memory.peak_allocated_bytes or 0)
        found[components.CACHE_FRAGMENTATION] = max(0, memory.reserved_bytes - used)
    return found


def _activations(memory: Memory) -> int:
    return max(0, (memory.peak_allocated_bytes or 0) - sum(memory.components.values()))


def _held(planned: _Ends, measured: int) -> Held:
    nearest = min(max(measured, planned.low), planned.high)
    return Held(
        planned_low_bytes=planned.low,
        planned_bytes=planned.high,
        measured_bytes=measured,
        difference_bytes=measured - nearest,
    )
