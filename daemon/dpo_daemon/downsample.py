"""A series in pieces of equal width in steps, each with its extremes, so that no spike is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpo_telemetry.series.columns import Floats, Ints, Series


@dataclass(frozen=True)
class Pieces:
    """Arrays of shape (pieces,), in the order of their steps; pieces without rows are left out."""

    first_steps: Ints
    last_steps: Ints
    low: Floats
    """Smallest finite value; NaN when there is none."""
    high: Floats
    """Largest finite value; NaN when there is none."""
    last: Floats
    """Newest value, finite or not."""
    nonfinite: Ints
    """Values that are NaN or infinite."""


def downsample(
    series: Series, *, buckets: int, first_step: int | None = None, last_step: int | None = None
) -> Pieces:
    """At most `buckets` pieces of the steps from `first_step` to `last_step`, both included."""
    begin = 0 if first_step is None else int(np.searchsorted(series.steps, first_step))
    end = len(series) if last_step is None else int(np.searchsorted(series.steps, last_step, side="right"))
    steps, values = series.steps[begin:end], series.values[begin:end]
    if len(steps) == 0:
        none, nothing = np.empty(0, np.int64), np.empty(0, np.float64)
        return Pieces(none, none, nothing, nothing, nothing, none)
    width = max(1, -(-(int(steps[-1]) - int(steps[0]) + 1) // buckets))
    piece = (steps - steps[0]) // width
    starts = np.flatnonzero(np.diff(piece, prepend=-1))
    ends = np.append(starts[1:], len(steps)) - 1
    finite = np.isfinite(values)
    low = np.minimum.reduceat(np.where(finite, values, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf), starts)
    nonfinite = np.add.reduceat((~finite).astype(np.int64), starts)
    empty = nonfinite == ends - starts + 1
    return Pieces(
        first_steps=steps[starts],
        last_steps=steps[ends],
        low=np.where(empty, np.nan, low),
        high=np.where(empty, np.nan, high),
        last=values[ends],
        nonfinite=nonfinite,
    )
