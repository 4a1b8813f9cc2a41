"""Which steps are in sight: zooming and panning along whatever the x axis shows."""

from __future__ import annotations

import numpy as np

from dpo_tui.charts.axis import Axis

Steps = tuple[int, int]
"""First and last step in sight."""

JUMP_REACH = 100
"""Steps on either side of one that was jumped to."""


def zoomed(window: Steps, whole: Steps, axis: Axis, factor: float, at: int) -> Steps | None:
    """The window shrunk (`factor` < 1) or grown around `at`, which keeps its place; None is everything."""
    low, high = axis.position(window[0]), axis.position(window[1])
    centre = min(max(axis.position(at), low), high)
    first, last = _steps(axis, centre - (centre - low) * factor, centre + (high - centre) * factor)
    if factor < 1 and last - first < 1:
        first = min(max(at, window[0]), window[1] - 1) if window[1] > window[0] else window[0]
        last = first + 1
    elif factor > 1:
        first, last = min(first, window[0] - 1), max(last, window[1] + 1)
    if first <= whole[0] and last >= whole[1]:
        return None
    return first, last


def panned(window: Steps, whole: Steps, axis: Axis, share: float) -> Steps:
    """The window moved by a share of its width, one step at least; half of it stays on the data."""
    low, high = axis.position(window[0]), axis.position(window[1])
    by = (high - low) * share
    first, _ = _steps(axis, low + by, high + by)
    moved = first - window[0]
    if share and not moved:
        moved = 1 if share > 0 else -1
    span = window[1] - window[0]
    first = min(max(window[0] + moved, whole[0] - span // 2), max(whole[1] - span // 2, whole[0]))
    return first, first + span


def around(step: int, reach: int = JUMP_REACH) -> Steps:
    """A window with a step in its middle."""
    return step - reach, step + reach


def newest(window: Steps, whole: Steps) -> Steps:
    """A window of the same width that ends at the newest step."""
    return whole[1] - (window[1] - window[0]), whole[1]


def _steps(axis: Axis, low: float, high: float) -> Steps:
    first, last = axis.steps_at(np.array([low, high]))
    return round(float(first)), round(float(last))
