"""What the screens draw: one frozen picture of a run, taken from the model by the receiver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dpo_telemetry.events import Answer, Phase, Request
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.health.findings import findings
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Link
from dpo_telemetry.reader.status import Status, status_of
from dpo_tui.attention import UNTOUCHED, Attention
from dpo_tui.charts.chart import Ink, Line
from dpo_tui.views.cost import Cost, take_cost
from dpo_tui.views.logs import LogsView
from dpo_tui.views.memory import MemoryView, take_memory
from dpo_tui.views.memory_rows import MemoryRow, Place
from dpo_tui.views.record import RecordView
from dpo_tui.views.series import Metrics, take_series
from dpo_tui.wants import ScreenName

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
    "grad norm": (("train", "grad_norm", Ink.TRAIN),),
    "learning rate": (("train", "learning_rate", Ink.TRAIN),),
    "log-probs": (
        ("chosen", "logps/chosen", Ink.CHOSEN),
        ("rejected", "logps/rejected", Ink.REJECTED),
        ("eval chosen", "eval_logps/chosen", Ink.CHOSEN),
        ("eval rejected", "eval_logps/rejected", Ink.REJECTED),
    ),
    "entropy": (("train", "entropy", Ink.TRAIN), ("eval", "eval_entropy", Ink.EVAL)),
    "held-out margin": (
        ("high", "eval_rewards/margins_high", Ink.SUPERSEDED),
        ("low", "eval_rewards/margins_low", Ink.SUPERSEDED),
        ("mean", "eval_rewards/margins", Ink.EVAL),
    ),
    "token accuracy": (
        ("train", "mean_token_accuracy", Ink.TRAIN),
        ("eval", "eval_mean_token_accuracy", Ink.EVAL),
    ),
}
"""Charts of the overview, the first what is always shown: title to (name in the legend, metric, ink).

Later lines lie on top.
"""

Charts = Mapping[str, tuple[Line, ...]]


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
    reading: float | None = None
    """Share of the run's data that was read, while the rest is still being read."""
    problem: str = ""
    """Why the keeper cannot be followed, one line; empty when it can."""
    requests: tuple[Request, ...] = ()
    answers: tuple[Answer, ...] = ()
    findings: tuple[Finding, ...] = ()
    metric_names: tuple[str, ...] = ()
    """Of every series of the run, in the order of their first appearance."""
    cost: Cost | None = None
    """What the run costs, where its profile has a price."""
    attention: Attention = UNTOUCHED
    """What the user has seen of the alerts and what is muted."""
    run_id: str = ""
    """What is kept of a run beside it is kept by this; its name where it has no id."""
    metrics: Metrics | None = None
    """Filled while the metrics or the alerts screen is in front."""
    memory_view: MemoryView | None = None
    """Filled while the memory screen is in front."""
    logs: LogsView | None = None
    """Filled while the log screen is in front."""
    record: RecordView | None = None
    """Filled while the configuration or the timeline is in front."""

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
    logs: LogsView | None = None,
    record: RecordView | None = None,
    memory: tuple[MemoryRow, ...] = (),
    memory_place: Place | None = None,
    screen: ScreenName = "overview",
    problem: str = "",
    reading: float | None = None,
) -> Snapshot:
    """Freeze what the model knows at `now_s`, in the detail that the screen in front needs."""
    attempt, alerts = model.attempt, model.alerts
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
        memory=memory,
        alerts=tuple(alerts),
        log=log,
        logs=logs,
        lost_events=model.lost_events,
        damaged_lines=model.damaged_lines,
        problem=problem,
        reading=reading,
        requests=tuple(model.requests),
        answers=tuple(model.answers),
        findings=tuple(findings(alerts)),
        metric_names=tuple(model.series.names()),
        cost=take_cost(model),
        run_id=model.run.id if model.run is not None else name,
        metrics=take_series(model) if screen in ("metrics", "alerts") else None,
        memory_view=take_memory(model, memory, memory_place, now_s) if screen == "memory" else None,
        record=record,
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
