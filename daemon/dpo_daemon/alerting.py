"""What the keeper does about the health rules' alerts: each is written down once, and acted upon as `[alerts]` says."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.rundir import control
from dpo_telemetry.rundir.layout import Attempt, RunDirectory
from dpo_telemetry.writer import EventWriter

log = logging.getLogger(__name__)

ISSUER = "keeper: "
WATCHED_BY_RANKS = ("nonfinite", "reference_mismatch", "adapter_frozen")
"""Codes on which ranks stop themselves, at once and by what they measure; the rules add what is critical."""


class Alerting:
    """One keeper's word on one attempt."""

    def __init__(self, run: RunDirectory, attempt: Attempt, writer: EventWriter) -> None:
        self._run = run
        self._attempt = attempt
        self._writer = writer
        self._reported: dict[tuple[str, str | None], int] = {}
        self._stopped = False

    def report(self, model: RunModel) -> None:
        """Write down what is new or graver in this attempt, also to an earlier keeper; stop where the profile says so.

        The stop is asked for first: a keeper that is killed in between must not leave its successor to believe that
        all was done.
        """
        attempt = model.attempt
        if attempt is None:
            return
        for event in attempt.alerts:
            self._know(event)
        begun_at = attempt.start.resumed_from_step if attempt.start is not None else None
        for alert in model.judged_alerts():
            if begun_at is not None and alert.last_step is not None and alert.last_step <= begun_at:
                # Of the attempt before, and told there.
                continue
            if _stops(alert, attempt.profile):
                self._stop(alert)
            if self._know(alert):
                log.warning("alert %s: %s", alert.code, alert.message)
                self._writer.put(_event(alert))

    def _know(self, alert: HealthAlert | events.Alert) -> bool:
        """Whether it is the first of its code and metric, or graver than those before."""
        key, severity = (alert.code, alert.metric), events.SEVERITIES.index(alert.severity)
        news = severity > self._reported.get(key, -1)
        if news:
            self._reported[key] = severity
        return news

    def _stop(self, alert: HealthAlert) -> None:
        """Ask the ranks to end after their step, with a checkpoint; once, and not those that have ended."""
        if self._stopped or self._attempt.ended():
            return
        asked = control.pending(self._run, self._attempt.number)
        self._stopped = True
        if any(request.action == "stop" and request.issuer.startswith(ISSUER) for request in asked):
            return
        issuer = f"{ISSUER}{alert.code} at step {alert.step}"
        try:
            control.submit(self._run, "stop", issuer=issuer, attempt=self._attempt.number)
        except (OSError, TelemetryError) as error:
            log.error("%s: the run cannot be asked to stop: %s", alert.code, error)
            self._stopped = False
            return
        log.warning("[alerts] %s is stop, so the run is asked to", alert.code)


def _event(alert: HealthAlert) -> events.Alert:
    known = {name: value for name, value in msgspec.structs.asdict(alert).items() if name in _FIELDS}
    return events.Alert(**events.stamp(), **known)


_FIELDS = {field.name for field in msgspec.structs.fields(events.Alert)}


def _stops(alert: HealthAlert, profile: dict[str, Any]) -> bool:
    """Whether `[alerts]` has `stop` for it; a metric's NaN beside a finite loss is a warning, and stops nothing."""
    actions = profile.get("alerts")
    if not isinstance(actions, dict) or actions.get(alert.code) != "stop":
        return False
    return alert.severity == "critical" if alert.code in WATCHED_BY_RANKS else alert.severity != "info"
