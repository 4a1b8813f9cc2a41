"""Exponential moving averages that do not lose what is not a number."""

from __future__ import annotations

import numpy as np

from dpo_tui.charts.downsample import Floats

NEGLIGIBLE = 1e-12
"""Weight below which the past no longer changes an average."""


def smoothed(values: Floats, weight: float) -> Floats:
    """Average of each value and those before it, shape [n]; those `k` points back count `weight`^k.

    The weights of a value add up to one from the first point on (the debiased average that
    TensorBoard draws). A value that is not finite stays as it is and counts in no average.
    """
    if not 0 < weight < 1 or not len(values):
        return values
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0) * (1 - weight)
    weights = finite * (1 - weight)
    reach, factor = 1, weight
    # Each pass doubles how far back the sums reach.
    while reach < len(values) and factor > NEGLIGIBLE:
        total[reach:] += factor * total[:-reach]
        weights[reach:] += factor * weights[:-reach]
        reach, factor = 2 * reach, factor * factor
    return np.where(finite, total / np.where(weights > 0, weights, 1.0), values)
