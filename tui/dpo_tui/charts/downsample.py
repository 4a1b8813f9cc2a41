"""A series reduced to the dot columns of a plot; spikes and non-finite values are kept.

Each dot column keeps the first, last, lowest and highest finite value that falls into it
(the M4 aggregation of Jugel et al., "M4: A Visualization-Oriented Time Series Data
Aggregation", VLDB 2014) and three flags that say whether a NaN, +inf or -inf was among
them. Plain min/max reductions drop a NaN; here one NaN among a million points still marks
its column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Columns:
    """One series by dot column; every array has shape [columns]."""

    first: Floats
    """First value in the column; NaN where it is not finite or there is none."""
    last: Floats
    low: Floats
    """Lowest finite value; NaN where there is none."""
    high: Floats
    filled: Bools
    """Whether any point, finite or not, falls into the column."""
    nan: Bools
    positive_infinity: Bools
    negative_infinity: Bools
    below: Bools | None = None
    """Whether a value has no place on a logarithmic scale; None on a linear one."""

    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest finite value, or None when there is none."""
        finite = np.isfinite(self.low)
        if not finite.any():
            return None
        return float(self.low[finite].min()), float(self.high[finite].max())


def downsample(steps: Ints, values: Floats, step_range: tuple[int, int], edges: Ints) -> Columns:
    """Reduce ascending `steps` and their `values`, both shape [n], to dot columns.

    `edges` are the first step of each column and one past the last, shape [columns + 1]. Points
    outside `step_range` (both ends included) are left out.
    """
    columns = len(edges) - 1
    bounds = np.searchsorted(steps, edges)
    bounds[0] = np.searchsorted(steps, step_range[0])
    filled = bounds[1:] > bounds[:-1]
    starts, ends = bounds[:-1][filled], bounds[1:][filled]
    if not len(starts):
        return _empty(columns)
    with np.errstate(invalid="ignore"):
        low = np.minimum.reduceat(values[: ends[-1]], starts)
        high = np.maximum.reduceat(values[: ends[-1]], starts)
    flags = np.zeros((3, len(starts)), dtype=np.bool_)
    broken = ~(np.isfinite(low) & np.isfinite(high))
    if broken.any():
        low[broken], high[broken], flags[:, broken] = _reduce_broken(values, starts[broken], ends[broken])
    return Columns(
        first=_spread(_finite(values[starts]), filled),
        last=_spread(_finite(values[ends - 1]), filled),
        low=_spread(low, filled),
        high=_spread(high, filled),
        filled=filled,
        nan=_spread_flags(flags[0], filled),
        positive_infinity=_spread_flags(flags[1], filled),
        negative_infinity=_spread_flags(flags[2], filled),
    )


def _reduce_broken(values: Floats, starts: Ints, ends: Ints) -> tuple[Floats, Floats, Bools]:
    """Finite low and high, and the three flags, of columns that hold a non-finite value."""
    counts = ends - starts
    offsets = np.concatenate(([0], np.cumsum(counts)[:-1]))
    picked = values[np.arange(counts.sum()) + np.repeat(starts - offsets, counts)]
    finite = np.isfinite(picked)
    low = np.minimum.reduceat(np.where(finite, picked, np.inf), offsets)
    high = np.maximum.reduceat(np.where(finite, picked, -np.inf), offsets)
    flags = np.stack(
        [
            np.logical_or.reduceat(mask, offsets)
            for mask in (np.isnan(picked), picked == np.inf, picked == -np.inf)
        ]
    )
    return _finite(low), _finite(high), flags


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _spread(values: Floats, filled: Bools) -> Floats:
    out = np.full(len(filled), np.nan)
    out[filled] = values
    return out


def _spread_flags(flags: Bools, filled: Bools) -> Bools:
    out = np.zeros(len(filled), dtype=np.bool_)
    out[filled] = flags
    return out


def _empty(columns: int) -> Columns:
    nan = np.full(columns, np.nan)
    off = np.zeros(columns, dtype=np.bool_)
    return Columns(nan, nan, nan, nan, off, off, off, off)
