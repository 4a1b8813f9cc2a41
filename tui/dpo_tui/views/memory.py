"""Memory of one rank or card over time and against its plan, as the memory screen draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dpo_telemetry import components
from dpo_telemetry.budget import PLAN_PHASES, STANDING_PHASES, Held, measured_components
from dpo_telemetry.reader import memory_history
from dpo_telemetry.reader.memory_history import Samples
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.status import ENDED, status_of
from dpo_tui.views.autopsy import Autopsy, autopsy
from dpo_tui.views.forecast import Forecast, forecast
from dpo_tui.views.memory_rows import MemoryRow, Place, plan_totals

TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Difference:
    """One component of a rank, in bytes."""

    name: str
    planned_low_bytes: int | None
    planned_bytes: int | None
    """None where there is no plan for it."""
    measured_bytes: int | None
    """At its largest; None where it was not measured yet."""
    difference_bytes: int | None


@dataclass(frozen=True, slots=True)
class PhasePeak:
    """The most of one phase, in bytes. Parts of training are planned one by one, and measured together."""

    phase: str
    planned_bytes: int | None
    measured_bytes: int | None
    within_train: bool = False


@dataclass(frozen=True, slots=True)
class Growth:
    """Where memory that grows comes to its end."""

    of: str
    """What grows, in words."""
    capacity_bytes: int
    forecast: Forecast
    run_ends_in_s: float | None
    """When the run will be done at its present pace."""


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The newest attempt, and of it one rank or card."""

    row: MemoryRow | None = None
    """What is shown; None before anything was measured."""
    planned: bool = False
    """Whether there is a plan to hold it against."""
    gpu_name: str = ""
    samples: Samples | None = None
    """Of the rank."""
    card_samples: Samples | None = None
    """Of the card it is on."""
    components: tuple[Difference, ...] = ()
    """In the order of the ledger."""
    nvml: Held | None = None
    phases: tuple[PhasePeak, ...] = ()
    peaks_measured: bool = False
    """Whether the phases are peaks; where torch counts none (on a CPU) they are the tensors that stay."""
    others_bytes: int | None = None
    """What processes of others use on the card; None where it cannot be told apart."""
    growth: Growth | None = None
    autopsy: Autopsy | None = None
    revision: tuple[object, ...] = field(default=(), compare=False)
    """Differs where the lines over time differ."""


def take_memory(
    model: RunModel, rows: tuple[MemoryRow, ...], place: Place | None, now_s: float
) -> MemoryView:
    """What is known of a place; None and places that are not there are the rank that ran out, else the first."""
    died = autopsy(model, lambda rank: next((_others(model, row) for row in rows if row.rank == rank), None))
    shown = {row.place: row for row in rows}
    row = shown.get(place) if place is not None else None
    if row is None and died is not None and died.rank is not None:
        row = shown.get(died.rank)
    row = row or (rows[0] if rows else None)
    attempt = model.attempt
    if row is None or attempt is None:
        return MemoryView(autopsy=died, planned=attempt is not None and attempt.budget.planned)
    card = (row.host, row.gpu_index) if row.gpu_index is not None else None
    gpu = model.gpus.get(card) if card is not None else None
    samples = model.memory_history.rank(row.rank) if row.rank is not None else None
    card_samples = model.memory_history.card(card) if card is not None else None
    held = attempt.budget.rank(row.rank) if row.rank is not None else None
    return MemoryView(
        row=row,
        planned=attempt.budget.planned,
        gpu_name=gpu.name if gpu is not None else "",
        samples=samples,
        card_samples=card_samples,
        components=_components(model, row.rank) if row.rank is not None else (),
        nvml=held.nvml if held is not None else None,
        phases=_phases(model, row.rank) if row.rank is not None else (),
        peaks_measured=held is not None and bool(held.peaks),
        others_bytes=_others(model, row),
        growth=_growth(model, row, samples, card_samples, now_s),
        autopsy=died,
        revision=(
            attempt.number,
            row.place,
            *(one.revision for one in (samples, card_samples) if one is not None),
        ),
    )


def _others(model: RunModel, row: MemoryRow) -> int | None:
    """What of the card is used by none of the run's ranks."""
    if row.gpu_index is None or row.gpu_used_bytes is None:
        return None
    card = (row.host, row.gpu_index)
    ranks = [rank for rank, place in model.gpu_of_rank.items() if place == card]
    if not ranks:
        return None
    return max(0, row.gpu_used_bytes - sum(model.process_bytes.get(rank, 0) for rank in ranks))


def _components(model: RunModel, rank: int) -> tuple[Difference, ...]:
    """All components that are planned or measured."""
    attempt = model.attempt
    if attempt is None:
        return ()
    held = attempt.budget.rank(rank)
    found: dict[str, Difference] = {}
    if held is not None:
        for name, one in held.components.items():
            found[name] = Difference(
                name, one.planned_low_bytes, one.planned_bytes, one.measured_bytes, one.difference_bytes
            )
    elif rank in model.memory_history.ranks:
        for name, count in measured_components(model.memory[rank]).items():
            found[name] = Difference(name, None, None, count, None)
    phases = attempt.budget.planned_phases(rank)
    for name in components.ALL:
        if name not in found:
            largest = max((parts.get(name, 0) for parts in phases.values()), default=0)
            planned = (
                phases.get(STANDING_PHASES[name], {}).get(name, 0) if name in STANDING_PHASES else largest
            )
            if planned:
                found[name] = Difference(name, planned, planned, None, None)
    order = [name for name in components.ALL if name in found]
    return tuple(found[name] for name in [*order, *(name for name in found if name not in components.ALL)])


def _phases(model: RunModel, rank: int) -> tuple[PhasePeak, ...]:
    attempt = model.attempt
    if attempt is None:
        return ()
    held = attempt.budget.rank(rank)
    measured: Mapping[str, int]
    if held is not None and held.peaks:
        measured = {phase: one.measured_bytes for phase, one in held.peaks.items()}
    else:
        measured = model.memory_history.standing_bytes(rank)
    totals = plan_totals(attempt.budget.planned_phases(rank), standing=not (held is not None and held.peaks))
    found = []
    for phase, parts in PLAN_PHASES.items():
        planned = max((totals[part] for part in parts if part in totals), default=None)
        if planned is None and phase not in measured:
            continue
        found.append(PhasePeak(phase, planned, measured.get(phase)))
        if phase == TRAIN:
            found += [
                PhasePeak(part, totals[part], None, within_train=True)
                for part in parts
                if part in totals and part not in PLAN_PHASES
            ]
    return tuple(found)


def _growth(
    model: RunModel, row: MemoryRow, samples: Samples | None, card_samples: Samples | None, now_s: float
) -> Growth | None:
    """What fills first is what counts: the card, else what torch reserved of it, else the host."""
    if samples is None or status_of(model, now_s).state in ENDED:
        return None
    steps = samples.figures[memory_history.STEP]
    trained = np.flatnonzero(steps > 0)
    if not len(trained):
        return None
    since_s = samples.wall_s[trained[0]]
    host = model.hosts.get(row.host)
    if row.capacity_bytes and card_samples is not None:
        of, wall_s, sizes = "the card", card_samples.wall_s, card_samples.figures[memory_history.USED]
        capacity = row.capacity_bytes
    elif row.capacity_bytes:
        of, wall_s, sizes = "what torch reserves", samples.wall_s, samples.figures[memory_history.RESERVED]
        capacity = row.capacity_bytes
    elif host is not None and row.rss_bytes is not None:
        of, wall_s, sizes = "the process (RSS)", samples.wall_s, samples.figures[memory_history.RSS]
        capacity = row.rss_bytes + host.memory_available_bytes
    else:
        return None
    training = wall_s >= since_s
    found = forecast(wall_s[training], sizes[training], capacity)
    return Growth(of, capacity, found, model.eta_s) if found is not None else None
