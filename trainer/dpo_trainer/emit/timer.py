"""Where a step's time goes.

On a CPU a span ends when its work has ended. On CUDA the work runs behind the host, so a span is
two events on the stream; they are read when the step is told, after the loss was read and the
stream has passed them. Nothing is ever waited for.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch


class Mark(Protocol):
    """A point in time on the device."""

    def seconds_until(self, later: Mark) -> float | None:
        """Seconds between two marks, None while the device has not reached both."""
        ...


class HostMark:
    """A point in time on the host."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def seconds_until(self, later: Mark) -> float | None:
        """Seconds between two marks."""
        assert isinstance(later, HostMark)
        return later._at - self._at


class CudaMark:
    """A point on the current CUDA stream."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def seconds_until(self, later: Mark) -> float | None:
        """Seconds between two marks, None while the stream has not reached both."""
        assert isinstance(later, CudaMark)
        if not (self._event.query() and later._event.query()):  # type: ignore[no-untyped-call]
            return None
        return float(self._event.elapsed_time(later._event)) / 1e3


class StepTimer:
    """Collects the spans of one step at a time: data, forward, backward and optimizer."""

    def __init__(self, device: torch.device) -> None:
        self._mark: type[HostMark | CudaMark] = CudaMark if device.type == "cuda" else HostMark
        self._spans: defaultdict[str, list[tuple[Mark, Mark]]] = defaultdict(list)
        self._began: Mark | None = None
        self._last: Mark | None = None
        self._paused = False

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time what happens inside, unless the timer is paused."""
        if self._paused:
            yield
            return
        begin = self._mark()
        if self._began is None:
            self._began = begin
        yield
        self._last = self._mark()
        self._spans[name].append((begin, self._last))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside, such as an evaluation between two steps."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def finish_step(self) -> dict[str, float]:
        """Seconds of the step and its parts, and start over.

        What follows the last backward pass is the optimizer: clipping, update, schedule. Parts
        that the device has not finished are absent.
        """
        end = self._mark()
        found = {name: _sum(spans) for name, spans in self._spans.items()}
        times: dict[str, float | None] = {
            "step": self._began.seconds_until(end) if self._began else None,
            "data": found.get("data"),
            "forward": found.get("forward"),
            "backward": _difference(found.get("forward_backward"), found.get("forward")),
            "optimizer": self._last.seconds_until(end) if self._last else None,
        }
        self._spans.clear()
        self._began = self._last = None
        return {name: seconds for name, seconds in times.items() if seconds is not None}


def _sum(spans: list[tuple[Mark, Mark]]) -> float | None:
    seconds = [begin.seconds_until(end) for begin, end in spans]
    return None if None in seconds else sum(s for s in seconds if s is not None)


def _difference(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part
