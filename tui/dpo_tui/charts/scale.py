"""How values lie along the y axis: evenly, or by their order of magnitude."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dpo_tui.charts import ticks
from dpo_tui.charts.downsample import Columns, Floats

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Lowest and highest position of a plot; on a logarithmic one these are exponents of ten."""

    bounds: Bounds
    log: bool = False

    def ticks(self, most: int) -> tuple[list[float], list[str]]:
        """Positions and labels of at most `most` round values."""
        if not self.log:
            marks = ticks.value_ticks(*self.bounds, most)
            return marks, ticks.value_labels(marks)
        exponents = ticks.decade_ticks(*self.bounds, most)
        if len(exponents) > 1:
            return [float(exponent) for exponent in exponents], [f"1e{exponent}" for exponent in exponents]
        low, high = (min(10.0**bound, sys.float_info.max) for bound in self.bounds)
        marks = [mark for mark in ticks.value_ticks(low, high, most) if mark > 0] if low < high else []
        return np.log10(marks).tolist() if marks else [], ticks.value_labels(marks)


def scaled(columns: Sequence[Columns], log: bool) -> tuple[list[Columns], Scale | None]:
    """Columns in the positions of their scale, and the scale; None without any finite value.

    Of a logarithmic scale, values that are not positive lie below the plot. Where no value is
    positive the scale is linear.
    """
    if log:
        logarithmic = [_exponents(part) for part in columns]
        bounds = _bounds(logarithmic)
        if bounds is not None:
            return logarithmic, Scale(bounds, log=True)
    bounds = _bounds(columns)
    return list(columns), Scale(bounds) if bounds is not None else None


def _exponents(columns: Columns) -> Columns:
    low, high = _log10(columns.low), _log10(columns.high)
    # A column with a positive and another value reaches down to its lowest positive end.
    first, last = _log10(columns.first), _log10(columns.last)
    low = np.where(np.isnan(low), np.fmin(np.fmin(first, last), high), low)
    return replace(columns, first=first, last=last, low=low, high=high, below=columns.low <= 0)


def _log10(values: Floats) -> Floats:
    out = np.full(len(values), np.nan)
    np.log10(values, out=out, where=values > 0)
    return out


def _bounds(columns: Sequence[Columns]) -> Bounds | None:
    """Lowest and highest finite position of all lines, apart from each other; None without any."""
    found = [bounds for part in columns if (bounds := part.bounds()) is not None]
    if not found:
        return None
    low, high = min(low for low, _ in found), max(high for _, high in found)
    if high / 4 - low / 4 <= 0:
        pad = abs(low) / 10 or 1.0
        low, high = max(low - pad, -sys.float_info.max), min(high + pad, sys.float_info.max)
    return low, high
