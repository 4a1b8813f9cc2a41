"""A formula as people read it."""

from __future__ import annotations

import msgspec


class Formula(msgspec.Struct, frozen=True):
    """How bytes come about."""

    text: str
    """Arithmetic with `x` for times; each number may have words before it."""
    source: str
    """Where the rule is from."""


def n(count: float) -> str:
    """A number with its thousands apart: 8,192 or 6.75."""
    return f"{count:,}" if isinstance(count, int) else f"{count:,g}"
