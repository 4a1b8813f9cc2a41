"""What the ranks of one host wrote of themselves, and what their launcher saw of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpo_telemetry import events
from dpo_telemetry.identity import ProcessIdentity
from dpo_telemetry.rundir.layout import Attempt

TAIL_BYTES = 64 << 10

_FAILURE = re.compile(
    r"rank\s*: (?P<rank>\d+) \(local_rank: \d+\)\s+exitcode\s*: (?P<code>-?\d+) \(pid: \d+\)"
)
_ROOT = "Root Cause (first observed failure):"


@dataclass(frozen=True)
class RankRecord:
    """One rank, by its event file."""

    rank: int
    process: ProcessIdentity | None = None
    """None for a rank that came to no start event."""
    last_seen_s: float = 0.0
    """Wall clock of its last event, seconds since the epoch."""
    exit: events.Exit | None = None


@dataclass(frozen=True)
class Failures:
    """The failed ranks in a launcher's closing words."""

    codes: dict[int, int]
    """Exit code by rank; a signal is its negative."""
    first: int | None = None
    """The rank whose failure it saw first."""


def read_ranks(attempt: Attempt, count: int) -> list[RankRecord]:
    """What the first `count` ranks of an attempt wrote."""
    return [_read_rank(attempt.event_file(f"rank-{rank:05d}"), rank) for rank in range(count)]


def read_failures(launcher_output: str) -> Failures:
    """What torchrun, also under accelerate, prints of failed ranks; empty when it came to no such words."""
    codes = {int(found["rank"]): int(found["code"]) for found in _FAILURE.finditer(launcher_output)}
    root = _FAILURE.search(launcher_output, max(0, launcher_output.rfind(_ROOT)))
    return Failures(codes, int(root["rank"]) if root and _ROOT in launcher_output else None)


def tail(file: Path) -> str:
    """The last `TAIL_BYTES` of a file as text; empty when it is not there."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def _read_rank(file: Path, rank: int) -> RankRecord:
    start = next((event for event in _events(_head(file)) if isinstance(event, events.Start)), None)
    newest = list(_events(tail(file)))
    exits = [event for event in newest if isinstance(event, events.Exit)]
    return RankRecord(
        rank=rank,
        process=ProcessIdentity(start.boot_id, start.pid, start.process_started) if start else None,
        last_seen_s=newest[-1].t if newest else 0.0,
        exit=exits[-1] if exits else None,
    )


def _head(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _events(text: str) -> Iterator[events.AnyEvent]:
    """The events of whole lines; what is cut off or damaged is passed over."""
    for line in text.splitlines():
        with contextlib.suppress(*events.NOT_READABLE):
            if event := events.decode(line.encode()):
                yield event
