"""What every table of a profile is, and what every field of it says of itself."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Meta


def meta(unit: str, description: str, **limits: Any) -> Meta:
    """Unit, meaning and range of a field."""
    return Meta(description=description, extra={"unit": unit}, **limits)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table: immutable, and an unknown key is an error."""
