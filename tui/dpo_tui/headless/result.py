"""The object that `dpo-tui replay --headless --json` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from dpo_telemetry.events import SEVERITIES, Number, Severity, to_number
from dpo_telemetry.foreign.log import StepSource
from dpo_telemetry.foreign.open import ReplayedLog
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.series.columns import Series


class MetricSummary(msgspec.Struct, frozen=True):
    """One metric over its effective rows; `min` and `max` are those of the finite values."""

    count: int
    first: Number
    last: Number
    min: Number | None
    max: Number | None
    nonfinite: int


class ReportedAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert with the keys that programs may rely on; people also see its evidence and references."""

    code: str
    severity: Severity
    metric: str | None
    step: int | None
    last_step: int | None
    count: int
    message: str
    advice: str

    @classmethod
    def of(cls, alert: HealthAlert) -> ReportedAlert:
        """What of an alert is reported."""
        return cls(**{name: getattr(alert, name) for name in cls.__struct_fields__})


class Result(msgspec.Struct, frozen=True):
    """One log, read and diagnosed."""

    source: str
    format: str
    rows: int
    first_step: int | None
    last_step: int | None
    step_source: StepSource
    attempts: int
    superseded_rows: int
    lines_not_understood: int
    metrics: dict[str, MetricSummary]
    alerts: list[ReportedAlert]
    findings: list[Finding]
    verdict: Literal["clean", "alerts"]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one path: a result, or one line that says why there is none."""

    source: str
    result: Result | None = None
    error: str = ""


def is_grave(severity: Severity, fail_on: Severity) -> bool:
    """Whether an alert of this severity fails a log."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(fail_on)


def result_of(log: ReplayedLog, fail_on: Severity) -> Result:
    """Sum a log up; alerts below `fail_on` do not change the verdict."""
    tables = (log.series.train, log.series.eval)
    steps: list[int] = []
    metrics: dict[str, MetricSummary] = {}
    for name, series in effective_series(log):
        if len(series):
            metrics[name] = summary_of(series)
            steps += [int(series.steps[0]), int(series.steps[-1])]
    grave = [alert for alert in log.alerts if is_grave(alert.severity, fail_on)]
    return Result(
        source=log.source,
        format=log.format,
        rows=sum(len(table.effective_rows()) for table in tables),
        first_step=min(steps, default=None),
        last_step=max(steps, default=None),
        step_source=log.step_source,
        attempts=log.attempts,
        superseded_rows=sum(len(table.superseded_rows()) for table in tables),
        lines_not_understood=log.lines_not_understood,
        metrics=metrics,
        alerts=[ReportedAlert.of(alert) for alert in log.alerts],
        findings=log.findings,
        verdict="alerts" if grave else "clean",
    )


def effective_series(log: ReplayedLog) -> Iterator[tuple[str, Series]]:
    """Every metric's effective series; one that only superseded rows logged is empty."""
    return ((name, log.series.effective(name)) for name in log.series.names())


def summary_of(series: Series) -> MetricSummary:
    """Count, first, last, smallest and largest value of one metric that has values."""
    finite = series.values[np.isfinite(series.values)]
    return MetricSummary(
        count=len(series),
        first=to_number(float(series.values[0])),
        last=to_number(float(series.values[-1])),
        min=float(finite.min()) if len(finite) else None,
        max=float(finite.max()) if len(finite) else None,
        nonfinite=len(series) - len(finite),
    )
