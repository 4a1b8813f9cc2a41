"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import math
import time


def number(value: float | None, digits: int = 4) -> str:
    """A value with `digits` significant digits: 0.6931, 12.34, 1.2e30, nan."""
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return str(float(value))
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{max(1, digits - 3)}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, digits)}f}"


def size(count: float | None) -> str:
    """Bytes with a binary unit: 512 B, 81.3 MiB, 1.25 GiB."""
    if count is None:
        return "n/a"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB" if value < 1000 else f"{value:.0f} TiB"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units: 8 s, 2 m 05 s, 3 h 10 m, 2 d 04 h."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} m {total % 60:02d} s"
    if total < 86400:
        return f"{total // 3600} h {total % 3600 // 60:02d} m"
    return f"{total // 86400} d {total % 86400 // 3600:02d} h"


def step_time(seconds: float | None) -> str:
    """Seconds of one step: 6.8 s, 240 ms."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{number(seconds, 3)} s"


def clock_text(wall_s: float, form: str = "%H:%M:%S") -> str:
    """A wall clock time in the time of this place; empty where no calendar reaches it.

    Args:
        wall_s: seconds since the epoch; of a log, so any number.
        form: as `time.strftime` takes it.
    """
    try:
        return time.strftime(form, time.localtime(wall_s))
    except (ValueError, OverflowError, OSError):
        return ""


def ago(wall_s: float) -> str:
    """How long ago a wall clock time was."""
    return f"{duration(time.time() - wall_s)} ago"
