"""What a rule says."""

from __future__ import annotations

import msgspec

from dpo_telemetry.events import SEVERITIES, Alert, Severity
from dpo_telemetry.text import printable


class HealthAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One symptom: the keys are those of `dpo-tui replay --headless --json`."""

    code: str
    severity: Severity
    metric: str | None = None
    step: int | None = None
    """First step that shows it."""
    last_step: int | None = None
    count: int = 1
    """Rows that show it."""
    message: str
    advice: str = ""
    evidence: dict[str, float] = {}
    """Figures that were seen, finite ones; empty for what another process wrote down."""
    references: list[str] = []
    """Threads (`trl#2435`) and papers (`arXiv 2402.13228`) that describe the symptom."""

    @classmethod
    def of_event(cls, event: Alert) -> HealthAlert:
        """The alert that a process of the run wrote down."""
        return cls(
            code=printable(event.code),
            severity=event.severity,
            metric=None if event.metric is None else printable(event.metric),
            step=event.step,
            last_step=event.last_step,
            count=event.count,
            message=printable(event.message),
            advice=printable(event.advice),
        )

    @staticmethod
    def rank(alert: HealthAlert) -> tuple[int, int, str, str]:
        """Sort key: the gravest first, then the earliest."""
        return (-SEVERITIES.index(alert.severity), alert.step or 0, alert.code, alert.metric or "")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A cause with the symptoms it explains."""

    cause: str
    codes: list[str]
    text: str
    try_: str = msgspec.field(name="try")
