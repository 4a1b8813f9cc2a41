"""What an attempt that has ended left behind."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import msgspec

from dpo_daemon.ranks import RankRecord, read_ranks
from dpo_telemetry import events
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt

SELF_TEST = "self-test: "


@dataclass
class Record:
    """Rank 0's account of an attempt, and how all ranks ended."""

    ended: HostExit | None
    ranks: list[RankRecord]
    start: events.Start | None = None
    overdue: str = ""
    """Where it stood when it was ended for taking too long; empty where it ended by itself."""
    steps: dict[int, events.Step] = field(default_factory=dict)
    evals: dict[int, events.Eval] = field(default_factory=dict)
    self_tests: list[str] = field(default_factory=list)
    """One "CHECK: FINDING" each."""


def read_record(attempt: Attempt, ranks: int) -> Record:
    """Read the files of an attempt; lines that are no events are passed over."""
    record = Record(_host_exit(attempt), read_ranks(attempt, ranks))
    for event in _events(attempt):
        match event:
            case events.Start():
                record.start = event
            case events.Step():
                record.steps[event.step] = event
            case events.Eval():
                record.evals[event.step] = event
            case events.Phase(name="reference") if event.message.startswith(SELF_TEST):
                record.self_tests.append(event.message.removeprefix(SELF_TEST))
    return record


def _events(attempt: Attempt) -> list[events.AnyEvent]:
    try:
        lines = attempt.event_file("rank-00000").read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(*events.NOT_READABLE):
            found.append(events.decode(line))
    return [event for event in found if event is not None]


def _host_exit(attempt: Attempt) -> HostExit | None:
    for file in attempt.path.glob("exit-*.json"):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(file.read_bytes(), type=HostExit)
    return None
