"""The part of a metric that an alert speaks of, as lines of a chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.series.columns import Ints, Series
from dpo_telemetry.text import printable
from dpo_tui.charts.chart import Ink, Line
from dpo_tui.views.series import MetricView

ROWS_AROUND = 20
"""Rows that are shown before and after the steps in question."""
NEARLY_ALL = 0.6
"""A window over more of the run than this might as well show all of it."""

LEVELS = {
    "level": "level before",
    "start": "at the start",
    "expected": "expected",
    "expected_below": "expected below",
}
"""Figures of the evidence that are values of the metric, and what they are called beside a line."""


CONTEXT = ("loss", "rewards/margins", "grad_norm", "rewards/accuracies", "learning_rate", "eval_loss")
"""What is worth seeing beside any alert, where there is room."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One chart."""

    metric: str
    lines: tuple[Line, ...]
    step_range: tuple[int, int]


def evidence(alert: HealthAlert, metrics: Mapping[str, MetricView] | None) -> Evidence | None:
    """The metric of an alert around its steps, with these marked; None where nothing was logged."""
    if not metrics or alert.metric is None or alert.metric not in metrics:
        return None
    series = metrics[alert.metric].effective
    if not len(series):
        return None
    low, high = _window(alert, series.steps)
    names = [alert.metric, *(name for name in _beside(alert.metric) if name in metrics)]
    lines = [_line(name, _within(metrics[name].effective, low, high)) for name in reversed(names)]
    lines += [
        Line(told, np.array([low, high]), np.array([alert.evidence[key]] * 2), Ink.LABEL)
        for key, told in LEVELS.items()
        if key in alert.evidence
    ]
    asked = _within(series, *_steps(alert, series.steps))
    if len(asked):
        marked = alert.metric.startswith("eval_")
        lines.append(Line("in question", asked.steps, asked.values, Ink.NONFINITE, marked))
    return Evidence(alert.metric, tuple(lines), (low, high))


def charts(
    alerts: tuple[HealthAlert, ...], metrics: Mapping[str, MetricView] | None, limit: int
) -> list[Evidence]:
    """At most `limit` charts, one a metric: those of the alerts, then what else went on in the steps of the first."""
    found: dict[str, Evidence] = {}
    for alert in alerts:
        if len(found) < limit and alert.metric is not None and alert.metric not in found:
            drawn = evidence(alert, metrics)
            if drawn is not None:
                found[alert.metric] = drawn
    first = next(iter(found.values()), None)
    for name in CONTEXT:
        if first is not None and metrics and name in metrics and name not in found and len(found) < limit:
            series = _within(metrics[name].effective, *first.step_range)
            found[name] = Evidence(name, (_line(name, series),), first.step_range)
    return list(found.values())


def wall_s(alert: HealthAlert, metrics: Mapping[str, MetricView] | None) -> float | None:
    """When its first step was logged, seconds since the epoch; None where the log does not say."""
    if not metrics or alert.step is None or alert.metric is None or alert.metric not in metrics:
        return None
    series = metrics[alert.metric].effective
    at = int(np.searchsorted(series.steps, alert.step))
    return float(series.wall_s[at]) or None if at < len(series) else None


def _steps(alert: HealthAlert, steps: Ints) -> tuple[int, int]:
    """First and last step in question; the whole series where the alert names none."""
    first = int(steps[0]) if alert.step is None else alert.step
    last = int(steps[-1]) if alert.step is None else alert.step
    return first, last if alert.last_step is None else max(first, alert.last_step)


def _window(alert: HealthAlert, steps: Ints) -> tuple[int, int]:
    first, last = int(steps[0]), int(steps[-1])
    start, end = _steps(alert, steps)
    spacing = max(1, (last - first) // max(1, len(steps) - 1))
    around = max(ROWS_AROUND * spacing, (end - start) // 2)
    low, high = max(first, min(start, last) - around), min(last, max(end, first) + around)
    if high - low >= NEARLY_ALL * (last - first):
        low, high = first, last
    # A single row stands in the middle, not at an end.
    return (low, high) if low < high else (low - 1, high + 1)


def _beside(metric: str) -> tuple[str, ...]:
    """What a metric is held against."""
    if metric == "eval_loss":
        return ("loss",)
    return (metric.removesuffix("/chosen") + "/rejected",) if metric.endswith("/chosen") else ()


def _line(name: str, series: Series) -> Line:
    inks = {"/chosen": Ink.CHOSEN, "/rejected": Ink.REJECTED}
    ink = next((ink for end, ink in inks.items() if name.endswith(end)), None)
    marked = name.startswith("eval_")
    if ink is None:
        ink = Ink.EVAL if marked else Ink.TRAIN
    short = name.removeprefix("eval_").rpartition("/")[2] if name.endswith(tuple(inks)) else name
    shown = printable(f"eval {short}" if marked and short != name else short)
    return Line(shown, series.steps, series.values, ink, marked)


def _within(series: Series, low: int, high: int) -> Series:
    first, end = np.searchsorted(series.steps, low), np.searchsorted(series.steps, high, side="right")
    return Series(series.steps[first:end], series.values[first:end], series.wall_s[first:end])
