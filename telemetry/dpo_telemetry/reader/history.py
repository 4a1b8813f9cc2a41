"""What happened once in a run: starts, ends, checkpoints, requests, and the times when nothing was written."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dpo_telemetry.events import Answer, AnyEvent, Checkpoint, Exit, LogGap, Request, Start
from dpo_telemetry.reader.phases import Phases
from dpo_telemetry.reader.steps import StepColumns
from dpo_telemetry.series.columns import Floats

MAX_HAPPENINGS = 20_000
MAX_GAPS = 5_000
MIN_GAP_S = 15.0
"""Processes beat each second; a shared file system may hold the beats back for some seconds."""

Rare = Start | Exit | Checkpoint | Request | Answer | LogGap
_RARE = (Start, Exit, Checkpoint, Request, Answer, LogGap)


@dataclass(frozen=True, slots=True)
class Happening:
    """One event, and who wrote it."""

    attempt: int
    writer: str
    """Name of the event file without its ending: "rank-00000", "agent-HOST", "keeper-1"."""
    event: Rare


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a process wrote nothing, and then went on."""

    attempt: int
    writer: str
    begin_s: float
    """Wall clock of the last event before it, seconds."""
    end_s: float


class History:
    """Built from the events of every file; bounded, the oldest give way."""

    def __init__(self) -> None:
        self.phases = Phases()
        self.happenings: deque[Happening] = deque(maxlen=MAX_HAPPENINGS)
        self.gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self.left_out = 0
        """Happenings and gaps that are not kept any more."""
        self._taken = 0
        self._last_s: dict[str, float] = {}

    @property
    def version(self) -> tuple[int, int]:
        """Changes with everything that is taken in."""
        return self._taken, self.phases.taken

    def take(self, file: str, attempt: int, found: Sequence[AnyEvent], steps: StepColumns | None) -> None:
        """Events and steps that one file brought, in its order.

        Args:
            file: path of the event file in the run directory.
            attempt: whose file it is.
            found: events of it.
            steps: steps of it that came as columns.
        """
        writer = file.rpartition("/")[2].removesuffix(".jsonl")
        for event in found:
            if isinstance(event, _RARE):
                self._keep(Happening(attempt, writer, event))
        times = _times(found, steps)
        last = self._last_s.get(file)
        for begin, end in _pauses(times if last is None else np.append(last, times)):
            self.left_out += len(self.gaps) == MAX_GAPS
            self.gaps.append(Gap(attempt, writer, begin, end))
            self._taken += 1
        if len(times):
            self._last_s[file] = float(times[-1])

    def _keep(self, happening: Happening) -> None:
        event = happening.event
        if isinstance(event, Start) and event.role == "rank" and event.rank:
            # With a thousand ranks their starts would push out what matters, and say nothing new.
            return
        self.left_out += len(self.happenings) == MAX_HAPPENINGS
        self.happenings.append(happening)
        self._taken += 1


def _times(found: Sequence[AnyEvent], steps: StepColumns | None) -> Floats:
    """Wall clock of everything, in order."""
    told = np.fromiter((event.t for event in found), np.float64, len(found))
    if steps is None:
        return told
    if not len(told):
        return steps.wall_s
    return np.sort(np.concatenate([told, steps.wall_s]), kind="stable")


def _pauses(times: Floats) -> list[tuple[float, float]]:
    """Neighbours that lie further apart than processes that live can."""
    if len(times) < 2:
        return []
    if len(times) < 50:
        return [(a, b) for a, b in pairwise(map(float, times)) if b - a > MIN_GAP_S]
    places = np.flatnonzero(np.diff(times) > MIN_GAP_S)
    return [(float(times[at]), float(times[at + 1])) for at in places]
