"""Keys and tables that the schema does not have, refused with the right name nearest to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_profiles.errors import ProfileError
from dpo_profiles.fields import all_fields, fields_of, sections
from dpo_profiles.text import nearest, show, show_key

SHOWN_HOMES = 3


def refuse_unknown(table: Mapping[str, Any], source: str) -> None:
    """Raise ProfileError for the first table that is none, unknown table, or unknown key."""
    top = {field.name for field in fields_of("")}
    for key, value in table.items():
        if key in sections():
            _check_section(key, value, source)
        elif key not in top:
            unknown = _unknown_section(key) if isinstance(value, dict) else _unknown_key("", key)
            raise ProfileError(f"{source}: {unknown}")


def unknown_path(path: str) -> str:
    """Message for a `section.key` that is no field, without the file's name in front."""
    section, dot, key = path.partition(".")
    if not dot:
        return _unknown_key("", section)
    return _unknown_key(section, key) if section in sections() else _unknown_section(section, key)


def _check_section(section: str, value: object, source: str) -> None:
    if not isinstance(value, dict):
        raise ProfileError(
            f"{source}: {section}: {show(value)} is no table; write [{section}] and its keys below it"
        )
    known = {field.name for field in fields_of(section)}
    for key in value:
        if key not in known:
            raise ProfileError(f"{source}: {_unknown_key(section, key)}")


def _unknown_section(section: str, key: str = "") -> str:
    name = f"{show_key(section)}.{show_key(key)}" if key else show_key(section)
    near = nearest(section, sections())
    if near:
        return f"{name}: unknown section; did you mean [{near}]?"
    homes = _homes(key)
    if homes:
        return f"{name}: unknown section; did you mean {homes}?"
    return f"{name}: unknown section; the sections are {', '.join(sections())}"


def _unknown_key(section: str, key: str) -> str:
    name = f"{section}.{show_key(key)}" if section else show_key(key)
    own = [field.name for field in fields_of(section)]
    guess = _homes(key) or _full(section, nearest(key, own)) or _nearest_anywhere(key)
    if guess:
        return f"{name}: unknown key; did you mean {guess}?"
    where = f"[{section}] has" if section else "the keys above all sections are"
    return f"{name}: unknown key; {where} {', '.join(own)}"


def _homes(key: str) -> str:
    """Where a key of exactly this name exists."""
    return " or ".join([field.path for field in all_fields() if field.name == key][:SHOWN_HOMES])


def _full(section: str, key: str | None) -> str:
    if key is None:
        return ""
    return f"{section}.{key}" if section else key


def _nearest_anywhere(key: str) -> str:
    near = nearest(key, {field.name for field in all_fields()} | set(sections()))
    if near is None:
        return ""
    return f"[{near}]" if near in sections() else _homes(near)
