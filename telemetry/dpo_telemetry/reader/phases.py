"""The phases of rank 0 over the attempts: which is open, and how long the others took."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from dpo_telemetry.events import Phase, PhaseName, StepNumber

MAX_SPANS = 5_000
"""Phases that are kept: a run with more evaluations than that shows its newest ones."""


@dataclass(frozen=True, slots=True)
class Span:
    """One phase of one attempt."""

    attempt: int
    name: PhaseName
    begin_s: float
    """Wall clock, seconds; of the first event of it that is known."""
    end_s: float | None = None
    """Wall clock, seconds; None while it is open, and for ever where its process ended in it."""
    step: StepNumber | None = None
    message: str = ""
    """What was said last."""


class Phases:
    """Built from phase events in the order of their file."""

    def __init__(self) -> None:
        self.current: Phase | None = None
        """Innermost phase that is open, else the last one that ended."""
        self.left_out = 0
        """Ended phases that are not kept any more."""
        self.taken = 0
        """Phase events taken in."""
        self._open: dict[PhaseName, tuple[Phase, Span]] = {}
        self._ended: deque[Span] = deque(maxlen=MAX_SPANS)

    def take(self, event: Phase, attempt: int) -> None:
        """A phase began, moved on or ended; one that goes on becomes the innermost."""
        self.taken += 1
        _, span = self._open.pop(event.name, (None, Span(attempt, event.name, event.t)))
        span = replace(span, message=event.message or span.message, step=_newest(event.step, span.step))
        if event.state == "end":
            self._keep(replace(span, end_s=event.t))
        else:
            self._open[event.name] = (event, span)
        self.current = next(reversed(self._open.values()))[0] if self._open else event

    def interrupt(self) -> None:
        """Rank 0 began anew: what was open has no end."""
        for _, span in self._open.values():
            self._keep(span)
        self._open.clear()

    def spans(self) -> tuple[Span, ...]:
        """All that are kept, by attempt and begin; those without an end included."""
        found = [*self._ended, *(span for _, span in self._open.values())]
        return tuple(sorted(found, key=lambda span: (span.attempt, span.begin_s)))

    def _keep(self, span: Span) -> None:
        self.left_out += len(self._ended) == MAX_SPANS
        self._ended.append(span)


def _newest(step: StepNumber | None, before: StepNumber | None) -> StepNumber | None:
    return before if step is None else step
