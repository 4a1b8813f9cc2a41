"""A merged table becomes a Profile, or the one line that says why not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.fields import Field, all_fields, find_field
from dpo_profiles.schema import Profile
from dpo_profiles.text import kind_of, nearest, one_line, show

LARGEST_INTEGER = 2**63 - 1
"""Engine files, JSON readers and numpy columns hold 64 bits."""

_LOCATION = re.compile(r" - at `\$\.?([^`\[]*)(?:\[(\d+)\])?.*`$")


def to_profile(table: dict[str, Any], source_of: Callable[[str], str]) -> Profile:
    """Validate a table without unknown keys.

    `source_of` gives the file that a field's value came from.

    Raises:
        ProfileError: a field is missing, of the wrong type or out of range.
    """
    _refuse_missing(table, source_of)
    for field in all_fields():
        section = table.get(field.section, {}) if field.section else table
        if field.name in section:
            _refuse_odd(field, section[field.name], source_of)
    try:
        return msgspec.convert(table, Profile)
    except msgspec.ValidationError as error:
        raise ProfileError(_explain(str(error), table, source_of)) from None


def _refuse_missing(table: dict[str, Any], source_of: Callable[[str], str]) -> None:
    for field in all_fields():
        section = table.get(field.section, {}) if field.section else table
        if field.required and field.name not in section:
            where = f"to [{field.section}]" if field.section else "above all sections"
            raise ProfileError(
                f'{source_of(field.path)}: {field.path}: is missing; add {field.name} = "…" ({field.unit}) {where}'
            )


def _refuse_odd(field: Field, value: Any, source_of: Callable[[str], str]) -> None:
    """What msgspec lets through: non-finite numbers, huge integers, control characters."""
    for item in value if isinstance(value, list) else [value]:
        odd = (
            (isinstance(item, float) and not math.isfinite(item))
            or (isinstance(item, int) and abs(item) > LARGEST_INTEGER)
            or (isinstance(item, str) and any(ord(c) < 32 or ord(c) == 127 for c in item))
        )
        if odd:
            raise ProfileError(f"{source_of(field.path)}: {field.path}: {_odd(field, item)}")


def _odd(field: Field, value: object) -> str:
    if isinstance(value, str):
        return f"{show(value)} holds a control character; write it on one line"
    what = "is not finite" if isinstance(value, float) else "needs more than 64 bits"
    return f"{show(value)} {what}; give {field.allowed} ({field.unit})"


def _explain(message: str, table: dict[str, Any], source_of: Callable[[str], str]) -> str:
    location = _LOCATION.search(message)
    field = find_field(location[1]) if location else None
    if location is None or field is None:
        return f"{source_of('')}: {one_line(message)}; see docs/profiles.md for what is allowed"
    value = table[field.section][field.name] if field.section else table[field.name]
    where = f"{source_of(field.path)}: {field.path}"
    if location[2] is None:
        return f"{where}: {_problem(field, value, message)}"
    return f"{where}: element {int(location[2]) + 1}: {_problem(field, value[int(location[2])], message)}"


def _problem(field: Field, value: Any, message: str) -> str:
    give = f"give {field.allowed} ({field.unit})"
    if ", got `" in message or (field.choices and not isinstance(value, str)):
        return f"{show(value)} is {kind_of(value)}; {give}"
    if field.choices:
        near = nearest(value, field.choices)
        guess = f"did you mean {near}? " if near else ""
        return f"{show(value)} is no choice; {guess}{give}"
    if isinstance(value, str | list):
        return f"{show(value)} is not allowed; {give}"
    return f"{show(value)} is out of range; {give}"
