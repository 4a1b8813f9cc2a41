"""Round numbers for axes, and labels that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

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
