"""`state.json`: the run in one small file, for lists; everything in it can be derived from the rest."""

from __future__ import annotations

import math
import time

import msgspec

from dpo_telemetry import events, identity
from dpo_telemetry.identity import ProcessIdentity
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.status import ENDED, State, status_of
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.text import printable


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stands."""

    id: str
    name: str
    state: State
    reason: str = ""
    attempt: int | None = None
    step: int = 0
    max_steps: int | None = None
    eta_s: float | None = None
    """Time that the steps still to come take at the recent pace, seconds."""
    metrics: dict[str, events.Number] = {}
    """Newest value of each metric."""
    alerts: dict[str, int] = {}
    """Number of alerts by severity."""
    keeper: ProcessIdentity | None = None
    agent: ProcessIdentity | None = None
    host: str
    """Where keeper and agent run."""
    updated: float
    """Seconds since the epoch."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come in the newest attempt."""
        return self.state in ENDED

    def keeper_alive(self) -> bool:
        """Whether the keeper that wrote this runs on this host."""
        return self.keeper is not None and self.keeper.alive()


def summarise(run: RunDirectory, model: RunModel, keeper: ProcessIdentity | None) -> Summary:
    """The summary of what a model holds.

    Raises:
        TelemetryError: this is no run directory.
    """
    info = model.run or run.info()
    status = status_of(model, time.time())
    severities = [alert.severity for alert in model.alerts]
    finite_eta_s = model.eta_s if model.eta_s is not None and math.isfinite(model.eta_s) else None
    return Summary(
        id=info.id,
        name=printable(info.name),
        state=status.state,
        reason=printable(status.reason),
        attempt=model.attempt.number if model.attempt else None,
        step=model.last_step,
        max_steps=model.max_steps,
        eta_s=None if status.ended else finite_eta_s,
        metrics=_last_metrics(model),
        alerts={severity: severities.count(severity) for severity in events.SEVERITIES},
        keeper=keeper,
        agent=agent_of(model),
        host=identity.host_name(),
        updated=time.time(),
    )


def read_summary(run: RunDirectory) -> Summary | None:
    """What the keeper wrote last; None when there is nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode(run.state_file.read_bytes(), type=Summary)
    except (OSError, msgspec.MsgspecError):
        return None


def current_summary(run: RunDirectory) -> Summary:
    """How a run stands now: the keeper's word while it lives and as its last one, else our own look.

    Raises:
        TelemetryError: this is no run directory.
    """
    written = read_summary(run)
    attempts = run.attempts()
    if written is None or not attempts or written.attempt != attempts[-1].number:
        return summarise(run, read_run(run), None)
    if written.ended or (written.keeper_alive() and not attempts[-1].ended()):
        return written
    return summarise(run, read_run(run), None)


def agent_of(model: RunModel) -> ProcessIdentity | None:
    """The agent of the newest attempt; None before it has begun."""
    attempt = model.attempt
    for process in model.processes.values():
        start = process.start
        if start and start.role == "agent" and attempt and process.attempt == attempt.number:
            return identity_of(start)
    return None


def ranks_of(model: RunModel, attempt: int) -> list[ProcessIdentity]:
    """Processes that write as ranks of an attempt."""
    starts = [process.start for process in model.processes.values() if process.attempt == attempt]
    return [identity_of(start) for start in starts if start is not None and start.role == "rank"]


def identity_of(start: events.Start) -> ProcessIdentity:
    """The process that wrote a start event."""
    return ProcessIdentity(start.boot_id, start.pid, start.process_started)


def _last_metrics(model: RunModel) -> dict[str, events.Number]:
    values = {name: model.series.last(name) for name in model.series.names()}
    return {name: events.to_number(value) for name, value in values.items() if value is not None}
