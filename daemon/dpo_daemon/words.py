"""Numbers as people read them."""

from __future__ import annotations

import time


def size(count: int) -> str:
    """Bytes with a binary unit: 0 B, 168.2 MiB, 37.81 GiB."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.2f} GiB"
    return f"{count / (1 << 20):.1f} MiB" if count else "0 B"


def duration(seconds: float) -> str:
    """A time span: 8 s, 2 m 05 s, 3 h 10 m."""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} m {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} m"


def ago(wall_s: float) -> str:
    """How long ago a wall clock time was."""
    return f"{duration(time.time() - wall_s)} ago"
