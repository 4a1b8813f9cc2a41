"""A series in one line of block characters."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BARS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"


def sparkline(values: npt.NDArray[np.float64], cells: int) -> str:
    """At most `cells` characters, each the mean of its values; a value that is not finite shows as a cross."""
    if len(values) == 0:
        return ""
    finite = values[np.isfinite(values)]
    # Sums and differences of the largest floats overflow; below 1 they do not, and halving is exact.
    halvings = max(0, math.frexp(float(np.abs(finite).max(initial=0.0)))[1])
    scaled = np.ldexp(values, -halvings)
    groups = np.array_split(scaled, min(cells, len(values)))
    finite = scaled[np.isfinite(scaled)]
    low, span = (float(finite.min()), float(np.ptp(finite))) if len(finite) else (0.0, 0.0)
    return "".join(_bar(group, low, span) for group in groups)


def _bar(group: npt.NDArray[np.float64], low: float, span: float) -> str:
    if not np.isfinite(group).all():
        return NOT_FINITE
    level = (float(group.mean()) - low) / span if span else 0.0
    return BARS[min(int(level * len(BARS)), len(BARS) - 1)]
