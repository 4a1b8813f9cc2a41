"""Memory of every rank as it stands, for bars and maps: one row a rank, then the cards that no rank was seen on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dpo_telemetry import components
from dpo_telemetry.events import Gpu, Memory
from dpo_telemetry.reader.attempt import AttemptView
from dpo_telemetry.reader.model import RunModel

Card = tuple[str, int]
"""Host and index of a GPU."""
Place = int | Card
"""A rank, or a card on which none of the run's ranks was seen."""


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory of one rank, or of a card without one: what was measured, and the plan for the same components."""

    rank: int | None
    measured: Mapping[str, int]
    """Bytes by component; a component that was not measured is absent. They add up to what the rank holds."""
    planned: Mapping[str, int]
    """Bytes by component, as far as the plan goes."""
    rss_bytes: int | None = None
    gpu_used_bytes: int | None = None
    """NVML's figure of the rank's card, other processes included."""
    capacity_bytes: int | None = None
    planned_peaks: Mapping[str, int] = field(default_factory=dict)
    """Bytes allocated by the plan's phase, where the rank measures what it allocates."""
    planned_nvml_bytes: tuple[int, int] | None = None
    """Lower and upper end of what NVML may show of the process, where it is on a card."""
    process_bytes: int | None = None
    """What NVML shows of the rank's process."""
    host: str = ""
    gpu_index: int | None = None

    @property
    def place(self) -> Place:
        """What the row is of."""
        return self.rank if self.rank is not None else (self.host, self.gpu_index or 0)

    @property
    def measured_bytes(self) -> int:
        """Sum of the measured components."""
        return sum(self.measured.values())

    @property
    def planned_bytes(self) -> int:
        """Plan for the components that were measured; like is compared with like."""
        return sum(self.planned.get(name, 0) for name in self.measured)

    @property
    def held_bytes(self) -> int:
        """The most that is known to be taken: the card's figure, else the process's, else the components'."""
        return max(self.gpu_used_bytes or 0, self.process_bytes or 0, self.measured_bytes)

    @property
    def over_plan_bytes(self) -> int:
        """How far measured components are above the plan for them; 0 within the plan, or without one."""
        return max(0, self.measured_bytes - self.planned_bytes) if self.planned_bytes else 0

    @property
    def share(self) -> float | None:
        """Of the card that is taken, else of the plan; None where neither is known."""
        if self.capacity_bytes:
            return self.held_bytes / self.capacity_bytes
        return self.measured_bytes / self.planned_bytes if self.planned_bytes else None


class MemoryRows:
    """Makes rows of a model; a row whose rank and card said nothing new is the same object as before."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Memory, Gpu | None, AttemptView, object, MemoryRow]] = {}
        self._rows: tuple[MemoryRow, ...] = ()

    def take(self, model: RunModel) -> tuple[MemoryRow, ...]:
        """Rows in the order of the ranks; the same tuple as before while nothing changed."""
        attempt, rows = model.attempt, []
        if attempt is None or model.memory_history.attempt != attempt.number:
            # What an earlier attempt held is no longer there.
            return ()
        for rank in sorted(model.memory_history.ranks):
            memory = model.memory[rank]
            card = model.gpus.get(model.gpu_of_rank[rank]) if rank in model.gpu_of_rank else None
            plan = attempt.plan
            known = self._known.get(rank)
            if known is None or not all(
                old is new for old, new in zip(known, (memory, card, attempt, plan), strict=False)
            ):
                known = (memory, card, attempt, plan, _rank_row(model, rank, memory))
                self._known[rank] = known
            rows.append(known[4])
        seen = set(model.gpu_of_rank.values())
        cards = sorted(model.memory_history.cards)
        rows += [_card_row(model.gpus[card]) for card in cards if card not in seen]
        if self._rows != (found := tuple(rows)):
            self._rows = found
        return self._rows


def stacked(memory: Memory, process_bytes: int | None) -> dict[str, int]:
    """Bytes by component so that they add up to what the process holds at its peak.

    Activations come out of the allocator's cache and go back to it: what of the cache they filled at the peak is
    not counted a second time.
    """
    found = {name: count for name, count in memory.components.items() if count >= 0}
    held = sum(found.values())
    if memory.peak_allocated_bytes is not None:
        found[components.ACTIVATIONS] = max(0, memory.peak_allocated_bytes - held)
        held = max(held, memory.peak_allocated_bytes)
    if memory.reserved_bytes is not None:
        found[components.CACHE_FRAGMENTATION] = max(0, memory.reserved_bytes - held)
        held = max(held, memory.reserved_bytes)
    if process_bytes is not None:
        found[components.CONTEXT_COMMUNICATION] = max(0, process_bytes - held)
    order = [name for name in components.ALL if name in found]
    return {name: found[name] for name in [*order, *(name for name in found if name not in components.ALL)]}


def plan_totals(phases: Mapping[str, Mapping[str, int]], *, standing: bool) -> dict[str, int]:
    """Planned bytes by phase; `standing` leaves activations out, for ranks that measure no peak."""
    return {
        phase: sum(
            count for name, count in parts.items() if not (standing and name == components.ACTIVATIONS)
        )
        for phase, parts in phases.items()
    }


def planned_capacity(attempt: AttemptView | None) -> int | None:
    """Memory of the card that the plan was made for; None where it is not known."""
    gpu = attempt.plan.get("gpu") if attempt is not None else None
    capacity = gpu.get("capacity_bytes") if isinstance(gpu, dict) else None
    return capacity if isinstance(capacity, int) and capacity > 0 else None


def host_of(model: RunModel, rank: int) -> str:
    """Host of a rank of the newest attempt; empty while it is not known."""
    if model.attempt is None:
        return ""
    process = model.processes.get(f"attempts/{model.attempt.number:03d}/events/rank-{rank:05d}.jsonl")
    return process.start.host if process is not None and process.start is not None else ""


def _rank_row(model: RunModel, rank: int, memory: Memory) -> MemoryRow:
    attempt = model.attempt
    budget = attempt.budget if attempt is not None else None
    held = budget.rank(rank) if budget is not None else None
    place = model.gpu_of_rank.get(rank)
    card = model.gpus.get(place) if place is not None else None
    process_bytes = model.process_bytes.get(rank)
    measured = stacked(memory, process_bytes)
    on_card = memory.allocated_bytes is not None or card is not None
    capacity = card.memory_total_bytes if card is not None else None
    peaks: dict[str, int] = {}
    if budget is not None and memory.peak_allocated_bytes is not None:
        peaks = plan_totals(budget.planned_phases(rank), standing=False)
    return MemoryRow(
        rank=rank,
        measured=measured,
        planned={name: one.planned_bytes for name, one in held.components.items()} if held else {},
        rss_bytes=memory.rss_bytes,
        gpu_used_bytes=card.memory_used_bytes if card is not None else None,
        capacity_bytes=(capacity or planned_capacity(attempt)) if on_card else None,
        planned_peaks=peaks,
        planned_nvml_bytes=budget.planned_nvml_bytes(rank) if budget is not None and on_card else None,
        process_bytes=process_bytes,
        host=place[0] if place is not None else host_of(model, rank),
        gpu_index=place[1] if place is not None else None,
    )


def _card_row(gpu: Gpu) -> MemoryRow:
    return MemoryRow(
        rank=None,
        measured={},
        planned={},
        gpu_used_bytes=gpu.memory_used_bytes,
        capacity_bytes=gpu.memory_total_bytes,
        host=gpu.host,
        gpu_index=gpu.index,
    )
