"""What the screens draw: one frozen picture of a run, taken from the model by the receiver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dpo_telemetry import components
from dpo_telemetry.budget import measured_components
from dpo_telemetry.events import Memory, Phase
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Link
from dpo_telemetry.reader.status import Status, status_of
from dpo_tui.charts.chart import Ink, Line

CHARTS: Mapping[str, tuple[tuple[str, str, Ink], ...]] = {
    "loss": (("train", "loss", Ink.TRAIN), ("eval", "eval_loss", Ink.EVAL)),
    "rewards": (
        ("chosen", "rewards/chosen", Ink.CHOSEN),
        ("rejected", "rewards/rejected", Ink.REJECTED),
        ("eval chosen", "eval_rewards/chosen", Ink.CHOSEN),
        ("eval rejected", "eval_rewards/rejected", Ink.REJECTED),
    ),
    "margins": (("train", "rewards/margins", Ink.TRAIN), ("eval", "eval_rewards/margins", Ink.EVAL)),
    "accuracies": (("train", "rewards/accuracies", Ink.TRAIN), ("eval", "eval_rewards/accuracies", Ink.EVAL)),
}
"""Charts of the overview: title to (name in the legend, metric, ink); later lines lie on top."""

Charts = Mapping[str, tuple[Line, ...]]


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory of one rank: what was measured, and the plan for the same components."""

    rank: int
    measured: Mapping[str, int]
    """Bytes by component; a component that was not measured is absent."""
    planned: Mapping[str, int]
    """Bytes by component, as far as the plan goes."""
    rss_bytes: int | None = None
    gpu_used_bytes: int | None = None
    """NVML's figure of the rank's card, other processes included."""
    capacity_bytes: int | None = None

    @property
    def measured_bytes(self) -> int:
        """Sum of the measured components."""
        return sum(self.measured.values())

    @property
    def planned_bytes(self) -> int:
        """Plan for the components that were measured; like is compared with like."""
        return sum(self.planned.get(name, 0) for name in self.measured)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a frame shows. `now_s` and `last_data_s` are wall clock, seconds."""

    name: str
    now_s: float
    link: Link
    status: Status
    attempt: int = 0
    step: int = 0
    max_steps: int | None = None
    step_time_s: float | None = None
    eta_s: float | None = None
    tokens_per_s: float | None = None
    pairs_per_s: float | None = None
    phase: Phase | None = None
    last_data_s: float | None = None
    charts: Charts | None = None
    memory: tuple[MemoryRow, ...] = ()
    alerts: tuple[HealthAlert, ...] = ()
    log: tuple[str, ...] = ()
    lost_events: int = 0
    damaged_lines: int = 0

    @property
    def silent_s(self) -> float | None:
        """Seconds since the newest data."""
        return None if self.last_data_s is None else max(0.0, self.now_s - self.last_data_s)


def take(
    model: RunModel,
    name: str,
    *,
    now_s: float,
    link: Link,
    last_data_s: float | None,
    charts: Charts,
    log: tuple[str, ...],
) -> Snapshot:
    """Freeze what the model knows at `now_s`."""
    attempt = model.attempt
    return Snapshot(
        name=model.run.name if model.run is not None else name,
        now_s=now_s,
        link=link,
        status=status_of(model, now_s),
        attempt=attempt.number if attempt is not None else 0,
        step=model.last_step,
        max_steps=model.max_steps,
        step_time_s=model.step_time_s,
        eta_s=model.eta_s,
        tokens_per_s=model.tokens_per_s,
        pairs_per_s=model.pairs_per_s,
        phase=model.phase,
        last_data_s=last_data_s,
        charts=charts,
        memory=memory_rows(model),
        alerts=tuple(model.alerts),
        log=log,
        lost_events=model.lost_events,
        damaged_lines=model.damaged_lines,
    )


def chart_lines(model: RunModel) -> Charts:
    """The lines of every chart of the overview."""
    known = set(model.series.names())
    charts = {}
    for title, parts in CHARTS.items():
        lines = []
        for name, metric, ink in parts:
            if metric in known:
                series = model.series.effective(metric)
                lines.append(Line(name, series.steps, series.values, ink, marked=metric.startswith("eval_")))
        charts[title] = tuple(lines)
    return charts


def memory_rows(model: RunModel) -> tuple[MemoryRow, ...]:
    """One row a rank, in the order of the ranks."""
    return tuple(_memory_row(model, rank, memory) for rank, memory in sorted(model.memory.items()))


def _memory_row(model: RunModel, rank: int, memory: Memory) -> MemoryRow:
    found = measured_components(memory)
    order = [name for name in components.ALL if name in found]
    order += [name for name in found if name not in components.ALL]
    budget = model.attempt.budget.rank(rank) if model.attempt is not None else None
    card = model.gpus.get(model.gpu_of_rank[rank]) if rank in model.gpu_of_rank else None
    return MemoryRow(
        rank=rank,
        measured={name: found[name] for name in order},
        planned={name: held.planned_bytes for name, held in budget.components.items()} if budget else {},
        rss_bytes=memory.rss_bytes,
        gpu_used_bytes=card.memory_used_bytes if card is not None else None,
        capacity_bytes=card.memory_total_bytes if card is not None else None,
    )
