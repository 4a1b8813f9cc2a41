"""Columns of values turned into Braille cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpo_tui.charts.downsample import Bools, Columns, Floats
from dpo_tui.charts.glyphs import DOT_BITS

DOTS_HIGH = 4
DOTS_WIDE = 2


def rows_of(values: Floats, bounds: tuple[float, float], rows: int) -> Floats:
    """Row, counted from the top, of each value; NaN stays NaN. `bounds` are low < high, finite.

    Everything is quartered first, so that a span near the largest float does not overflow.
    """
    low, high = bounds[0] / 4, bounds[1] / 4
    return np.rint((high - values / 4) / (high - low) * (rows - 1))


def line_dots(columns: Columns, bounds: tuple[float, float], dot_rows: int) -> Bools:
    """The dots of one joined line, shape [dot_rows, columns].

    A column without points is bridged when its neighbours are finite; a non-finite value
    breaks the line.
    """
    bridge = _bridge(columns)
    first, last, low, high = (
        rows_of(np.where(columns.filled, part, bridge), bounds, dot_rows)
        for part in (columns.first, columns.last, columns.low, columns.high)
    )
    top, bottom = high.copy(), low.copy()
    joint = np.floor((last[:-1] + first[1:]) / 2)
    top[:-1] = np.fmin(top[:-1], joint)
    bottom[:-1] = np.fmax(bottom[:-1], joint)
    top[1:] = np.fmin(top[1:], joint)
    bottom[1:] = np.fmax(bottom[1:], joint)
    rows = np.arange(dot_rows)[:, None]
    return np.asarray((rows >= top) & (rows <= bottom))


def cell_bits(dots: Bools) -> NDArray[np.uint8]:
    """Dots of shape [4 h, 2 w] as Braille bits of shape [h, w]."""
    packed = dots.view(np.uint8)
    bits = np.zeros((dots.shape[0] // DOTS_HIGH, dots.shape[1] // DOTS_WIDE), dtype=np.uint8)
    for row in range(DOTS_HIGH):
        for column in range(DOTS_WIDE):
            bits |= packed[row::DOTS_HIGH, column::DOTS_WIDE] * DOT_BITS[row, column]
    return bits


def cells_with(flags: Bools) -> Bools:
    """Whether either dot column of a cell is flagged: shape [2 w] to [w]."""
    return flags[0::DOTS_WIDE] | flags[1::DOTS_WIDE]


def _bridge(columns: Columns) -> Floats:
    """Straight lines across the columns without points, NaN next to a broken end."""
    occupied = np.flatnonzero(columns.filled)
    bridge = np.full(len(columns.filled), np.nan)
    if len(occupied) < 2 or len(occupied) == len(columns.filled):
        return bridge
    empty = np.flatnonzero(~columns.filled)
    empty = empty[(empty > occupied[0]) & (empty < occupied[-1])]
    after = np.searchsorted(occupied, empty)
    left, right = occupied[after - 1], occupied[after]
    start, end = columns.last[left], columns.first[right]
    share = (empty - left) / (right - left)
    bridge[empty] = start * (1 - share) + end * share
    return bridge
