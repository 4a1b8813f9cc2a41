"""When memory that grows will be full.

The slope is Theil's and Sen's: the median of the slopes between all pairs of points, which spikes do not move
(P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968). Its interval comes from the
variance of Kendall's S, as given there. Points are the smallest figures of short stretches, so that a line that
only swings does not grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpo_telemetry.reader.memory_history import Floats

RECENT_POINTS = 96
"""Of the history that are looked at."""
STRETCH_POINTS = 4
LEAST_STRETCHES = 12
LEAST_SHARE = 0.002
"""Of the capacity, that the line has to have grown by over the recent history."""
SETTLING = 0.5
"""Of the slope: where the newer half grows slower than this share of it, the line is coming to rest."""
Z_95 = 1.96
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where the recent growth ends."""

    bytes_per_s: float
    full_in_s: float
    """From the newest measurement."""
    soonest_s: float
    """With the upper end of the slope's 95 % interval."""
    latest_s: float
    """With the lower end, which is above 0."""
    recent_s: float
    """Time over which it was seen to grow."""
    grown_bytes: float


def forecast(wall_s: Floats, size_bytes: Floats, capacity_bytes: float) -> Forecast | None:
    """When `size_bytes` (shape [n], over `wall_s` in seconds) reaches `capacity_bytes`.

    None where it does not grow for sure, where there are too few measurements, or where it is full already.
    """
    known = np.isfinite(size_bytes) & np.isfinite(wall_s)
    times, sizes = wall_s[known][-RECENT_POINTS:], size_bytes[known][-RECENT_POINTS:]
    if len(sizes) < LEAST_STRETCHES * STRETCH_POINTS:
        return None
    times, sizes = _smallest(times, sizes)
    slope, low, high = _slopes(times, sizes)
    half = len(times) // 2
    newest, newest_low, _ = _slopes(times[half:], sizes[half:])
    if low <= 0 or newest_low <= 0 or newest < SETTLING * slope:
        return None
    recent_s = float(times[-1] - times[0])
    left = capacity_bytes - float(size_bytes[known][-1])
    if slope * recent_s < LEAST_SHARE * capacity_bytes or left <= 0:
        return None
    return Forecast(slope, left / slope, left / high, left / low, recent_s, slope * recent_s)


def _smallest(times: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """The smallest figure of each whole stretch and its time; what does not fill a stretch is the oldest."""
    whole = len(sizes) - len(sizes) % STRETCH_POINTS
    times, sizes = times[-whole:].reshape(-1, STRETCH_POINTS), sizes[-whole:].reshape(-1, STRETCH_POINTS)
    at = np.arange(len(sizes)), sizes.argmin(axis=1)
    return times[at], sizes[at]


def _slopes(times: Floats, sizes: Floats) -> tuple[float, float, float]:
    """Slope in bytes a second with the ends of its 95 % interval; zeros where time stands still."""
    count = len(times)
    earlier, later = np.triu_indices(count, 1)
    apart = times[later] - times[earlier]
    forward = apart > 0
    if not forward.any():
        return 0.0, 0.0, 0.0
    slopes = np.sort((sizes[later] - sizes[earlier])[forward] / apart[forward])
    spread = Z_95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, round((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])
