"""Columns of values turned into Braille cells."""

from __future__ import annotations

from functools import lru_cache

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
    parts = np.stack((columns.first, columns.last, columns.low, columns.high))
    if not columns.filled.all():
        parts = np.where(columns.filled, parts, _bridge(columns))
    first, last, bottom, top = rows_of(parts, bounds, dot_rows)
    joint = np.floor((last[:-1] + first[1:]) / 2)
    for side in (slice(None, -1), slice(1, None)):
        top[side] = np.fmin(top[side], joint)
        bottom[side] = np.fmax(bottom[side], joint)
    # A column without a finite value starts below its end: none of its dots are set.
    top[np.isnan(top)], bottom[np.isnan(bottom)] = dot_rows, -1
    rows = np.arange(dot_rows, dtype=np.int16)[:, None]
    return np.asarray((rows >= top.astype(np.int16)) & (rows <= bottom.astype(np.int16)))


def cell_bits(dots: Bools) -> NDArray[np.uint8]:
    """Dots of shape [4 h, 2 w] as Braille bits of shape [h, w]."""
    bits = dots.view(np.uint8) * _bits_of_dots(*dots.shape)
    stacked = bits[0::DOTS_HIGH] | bits[1::DOTS_HIGH] | bits[2::DOTS_HIGH] | bits[3::DOTS_HIGH]
    return np.asarray(stacked[:, 0::DOTS_WIDE] | stacked[:, 1::DOTS_WIDE])


@lru_cache(maxsize=32)
def _bits_of_dots(rows: int, columns: int) -> NDArray[np.uint8]:
    """Bit of every dot in its cell, shape [rows, columns]."""
    return np.tile(DOT_BITS, (rows // DOTS_HIGH, columns // DOTS_WIDE))


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
