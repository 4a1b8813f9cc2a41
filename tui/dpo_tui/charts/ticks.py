"""Round numbers for axes, and labels that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice, pairwise

MAX_LABEL_WIDTH = 8


def value_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """At most `max_ticks` round values within [low, high], ascending; both ends finite, low < high."""
    if not math.isfinite(high - low):
        return [low, 0.0, high][:max_ticks]
    for step in _round_steps((high - low) / (2 * max_ticks)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < max_ticks:
            return [index * step for index in range(first, last + 1)]
    return []


def step_ticks(low: int, high: int, max_ticks: int) -> list[int]:
    """At most `max_ticks` round whole steps within [low, high], ascending."""
    for pitch in map(int, _round_steps(max(1.0, (high - low) / (2 * max_ticks)))):
        ticks = range(-(-low // pitch) * pitch, high + 1, pitch)
        if len(ticks) <= max_ticks:
            return list(ticks)
    return []


def decade_ticks(low: float, high: float, most: int) -> list[int]:
    """At most `most` whole exponents of ten within [low, high], evenly spaced, ascending."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    pitch = max(1, -(-(last - first + 1) // max(1, most)))
    return list(range(-(-first // pitch) * pitch, last + 1, pitch))


TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
"""Round spans of time below a day, in seconds."""
DAY_S = 86_400


def time_ticks(low_s: float, high_s: float, most: int) -> list[float]:
    """At most `most` round times within [low_s, high_s], ascending; below a second as `value_ticks`."""
    if high_s - low_s < most:
        return value_ticks(low_s, high_s, most)
    days = (DAY_S * int(step) for step in _round_steps(1.0))
    for step in (*TIME_STEPS_S, *islice(days, 30)):
        first, last = math.ceil(low_s / step), math.floor(high_s / step)
        if last - first < most:
            return [float(index * step) for index in range(first, last + 1)]
    return []


def time_labels(times_s: list[float]) -> list[str]:
    """Two units at most: 40s, 2m30s, 1h15m, 3d12h."""
    if any(time_s != int(time_s) for time_s in times_s):
        return [f"{label}s" for label in value_labels(times_s)]
    return [_time_label(int(time_s)) for time_s in times_s]


def _time_label(time_s: int) -> str:
    sign, left = ("-" if time_s < 0 else ""), abs(time_s)
    parts = []
    for size, unit in ((DAY_S, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts[:2]) or "0")


def _round_steps(at_least: float) -> Iterator[float]:
    """1, 2 or 5 times powers of ten, ascending from `at_least`."""
    exponent = math.floor(math.log10(at_least)) if at_least > 0 else 0
    while exponent <= 308:
        for factor in (1, 2, 5):
            step = float(f"{factor}e{exponent}")
            if step >= at_least * (1 - 1e-9):
                yield step
        exponent += 1


def value_labels(ticks: list[float]) -> list[str]:
    """One label a tick, all with the same digits, and as few as tell them apart."""
    if not ticks:
        return []
    largest = max(abs(tick) for tick in ticks)
    gap = min((abs(b - a) for a, b in pairwise(ticks)), default=largest)
    if largest == 0 or (largest < 1e6 and gap >= 1e-5):
        decimals = max(0, -math.floor(math.log10(gap) + 1e-9)) if gap else 0
        labels = [_fixed(tick, decimals) for tick in ticks]
        if max(map(len, labels)) <= MAX_LABEL_WIDTH:
            return labels
    for digits in range(12):
        labels = [_scientific(tick, digits) for tick in ticks]
        if len(set(labels)) == len(labels):
            break
    return labels


def step_label(step: int) -> str:
    """A step, shortened only where nothing is lost: 950, 1.5k, 12345, 120k, 2M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if abs(step) >= size and step * 100 % size == 0:
            return f"{step / size:.2f}".rstrip("0").rstrip(".") + unit
    return str(step)


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def _scientific(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"
