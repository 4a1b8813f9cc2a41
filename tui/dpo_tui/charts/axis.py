"""How steps lie along the x axis: evenly, or by time, epoch or tokens.

Charts hold, zoom and point at steps whatever the axis; an axis only says where a step lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpo_tui.charts import ticks
from dpo_tui.charts.downsample import Floats, Ints


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """Positions of steps, with straight lines between them. Compared by identity."""

    name: str
    """What its label says: step, time, epoch or tokens."""
    steps: Floats
    """Ascending, shape [n]; empty where a step is its own position."""
    positions: Floats
    """Not falling, shape [n]; seconds since the first step where the name is `time`."""

    def position(self, step: float) -> float:
        """Where a step lies."""
        return float(np.interp(step, self.steps, self.positions)) if len(self.steps) else float(step)

    def steps_at(self, positions: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Steps, not rounded, of some positions."""
        return np.interp(positions, self.positions, self.steps) if len(self.steps) else positions

    def step_at(self, position: float) -> float:
        """Step, not rounded, of one position."""
        return float(self.steps_at(np.array([position]))[0])

    def edges(self, step_range: tuple[int, int], columns: int) -> Ints:
        """First step of each column and one past the last, shape [columns + 1].

        The first step of the range lies in the middle of the first column and the last step
        in the middle of the last one, so that a point sits where an axis label points.
        """
        first, last = step_range
        low, high = self.position(first), self.position(last)
        pitch = (high - low) / max(1, columns - 1)
        steps = self.steps_at(low + (np.arange(columns + 1) - 0.5) * pitch)
        edges: Ints = np.ceil(steps).astype(np.int64)
        if high <= low:
            edges[:] = first
        edges[-1] = last + 1
        return edges

    def ticks(self, step_range: tuple[int, int], most: int) -> list[tuple[float, str]]:
        """At most `most` round positions within the range, with their labels, ascending."""
        if not len(self.steps):
            return [(float(step), ticks.step_label(step)) for step in ticks.step_ticks(*step_range, most)]
        low, high = self.position(step_range[0]), self.position(step_range[1])
        if high <= low:
            return []
        if self.name == "time":
            marks = ticks.time_ticks(low, high, most)
            return list(zip(marks, ticks.time_labels(marks), strict=True))
        marks = ticks.value_ticks(low, high, most)
        if high - low >= most:
            return [(mark, ticks.step_label(round(mark))) for mark in marks]
        return list(zip(marks, ticks.value_labels(marks), strict=True))


STEP = Axis("step", np.empty(0), np.empty(0))
"""A step is its own position."""
