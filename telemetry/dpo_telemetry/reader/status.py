"""How a run stands, told apart by heartbeats and steps: alive, hung, silent, ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dpo_telemetry.events import PhaseName
from dpo_telemetry.reader.attempt import AttemptView, ProcessView
from dpo_telemetry.reader.model import RunModel

State = Literal[
    "waiting", "loading", "reference", "training", "evaluating", "saving",
    "finished", "stopped", "failed", "hung", "silent",
]  # fmt: skip

SILENT_AFTER_S = 15.0
"""Heartbeats come each second; a shared file system may hold them back for some seconds."""
HUNG_AFTER_STEPS = 10.0
"""A training rank that beats but makes no step for so many step times hangs."""
HUNG_AFTER_S = 120.0
"""... and for at least so long: first steps compile and warm up."""

_STATE_OF_PHASE: dict[PhaseName, State] = {
    "load": "loading",
    "reference": "reference",
    "train": "training",
    "eval": "evaluating",
    "save": "saving",
}

ENDED: tuple[State, ...] = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class Status:
    """State and, where there is something to say, why."""

    state: State
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come in this attempt."""
        return self.state in ENDED


def status_of(model: RunModel, now_s: float) -> Status:
    """How the newest attempt stands at `now_s` (wall clock, seconds)."""
    attempt = model.attempt
    if attempt is None and model.series.names():
        return Status("finished", "a log, as far as it goes")
    if attempt is None:
        return Status("waiting", "no attempt yet")
    ended = _ended(attempt)
    if ended is not None:
        return ended
    ranks = [
        p
        for p in model.processes.values()
        if p.attempt == attempt.number and p.start and p.start.role == "rank"
    ]
    if not ranks:
        return _before_ranks(model, attempt, now_s)
    silent_s = now_s - max(rank.last_seen_s for rank in ranks)
    if silent_s > SILENT_AFTER_S:
        return Status("silent", f"no heartbeat for {silent_s:.0f} s: dead, or its host is out of reach")
    return _alive(model, ranks, now_s)


def _ended(attempt: AttemptView) -> Status | None:
    if attempt.exit is not None and attempt.exit.code == 0:
        return Status(
            "stopped" if attempt.exit.reason.startswith("stopped") else "finished", attempt.exit.reason
        )
    if attempt.host_exits:
        worst = max(attempt.host_exits, key=lambda exit_: (exit_.signal != "", exit_.code or 0))
        if worst.reason.startswith("stopped"):
            return Status("stopped", worst.reason)
        if worst.code == 0 and not worst.signal:
            return Status("finished", worst.reason)
        # The agent knows all ranks of its host; rank 0 may only tell that it lost another one.
        own = attempt.exit.reason if attempt.exit is not None else ""
        return Status("failed", worst.reason or own or worst.signal)
    if attempt.exit is not None:
        return Status("failed", attempt.exit.reason)
    return None


def _before_ranks(model: RunModel, attempt: AttemptView, now_s: float) -> Status:
    agents = [
        p
        for p in model.processes.values()
        if p.attempt == attempt.number and p.start and p.start.role == "agent"
    ]
    if agents and now_s - max(agent.last_seen_s for agent in agents) > SILENT_AFTER_S:
        return Status("silent", "the agent stopped writing before any rank began")
    return Status("waiting", "the ranks are starting")


def _alive(model: RunModel, ranks: list[ProcessView], now_s: float) -> Status:
    phase = model.phase
    state: State = "waiting" if phase is None else _STATE_OF_PHASE[phase.name]
    newest_step_s = max(rank.last_step_s for rank in ranks)
    if state == "training" and newest_step_s and model.step_time_s:
        still_s = now_s - newest_step_s
        if still_s > max(HUNG_AFTER_S, HUNG_AFTER_STEPS * model.step_time_s):
            return Status("hung", f"heartbeats, but no step for {still_s:.0f} s")
    return Status(state, phase.message if phase is not None else "")
