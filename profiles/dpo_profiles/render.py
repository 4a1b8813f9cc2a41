"""A Profile as TOML with every default written out."""

from __future__ import annotations

from typing import Any

import tomli_w

from dpo_profiles.fields import Field, fields_of, sections
from dpo_profiles.schema import Profile

ALIGNED_CHARACTERS = 60
"""Longer lines carry their comment without widening the column."""


def to_toml(profile: Profile, *, comments: bool = True) -> str:
    """TOML that `parse_resolved` reads back into an equal Profile.

    With `comments`, each line ends with the field's meaning and unit.
    """
    blocks = [_block("", profile, comments)]
    blocks += [f"[{name}]\n" + _block(name, getattr(profile, name), comments) for name in sections()]
    return "\n".join(blocks)


def _block(section: str, struct: object, comments: bool) -> str:
    fields = fields_of(section)
    lines = [f"{field.name} = {_value(getattr(struct, field.name))}" for field in fields]
    if not comments:
        return "".join(f"{line}\n" for line in lines)
    width = max((len(line) for line in lines if len(line) <= ALIGNED_CHARACTERS), default=0)
    return "".join(
        f"{line:<{width}}  # {comment(field)}\n" for line, field in zip(lines, fields, strict=True)
    )


def comment(field: Field) -> str:
    """Meaning and unit of a field on one line."""
    return f"{field.description} ({field.unit})"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")
