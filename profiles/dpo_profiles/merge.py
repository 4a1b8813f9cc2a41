"""Families of profiles: `extends` and `--set`, merged table by table."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.fields import Field, find_field
from dpo_profiles.source import Source, absolute, find_source, parse_toml, read_text
from dpo_profiles.text import show
from dpo_profiles.unknown import refuse_unknown, unknown_path

OVERRIDE_LABEL = "--set"
ENGINE_FILE_FIELDS = ("deepspeed_file", "accelerate_file")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What one file, or one `--set`, says."""

    label: str
    table: dict[str, Any]


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """All layers as one table."""

    table: dict[str, Any]
    origins: dict[str, str]
    """`section.name` to the label of the layer whose value won."""


def read_layers(source: Source) -> list[Layer]:
    """The file and everything it extends, the furthest base first.

    Raises:
        ProfileError: a base is missing or unreadable, a key is unknown, or the chain closes.
    """
    layers: list[Layer] = []
    seen: dict[str, str] = {}
    while True:
        real = os.path.realpath(source.path)
        if real in seen:
            chain = " -> ".join([*seen.values(), source.label])
            raise ProfileError(
                f"{layers[-1].label}: extends: the chain {chain} closes on itself; remove one extends"
            )
        seen[real] = source.label
        table = parse_toml(read_text(source.path, source.label), source.label)
        base = table.pop("extends", None)
        refuse_unknown(table, source.label)
        layers.append(Layer(label=source.label, table=_with_engine_paths(table, source.path.parent)))
        if base is None:
            return layers[::-1]
        source = _base(base, source)


def parse_override(text: str) -> Layer:
    """One `section.key=value`; the value is TOML, and a bare word is text.

    Raises:
        ProfileError: no `=` or no such field.
    """
    path, equals, raw = text.partition("=")
    path, raw = path.strip(), raw.strip()
    if not equals or not path:
        raise ProfileError(f"{OVERRIDE_LABEL}: {show(text)} has no value; write section.key=value")
    field = find_field(path)
    if field is None:
        raise ProfileError(f"{OVERRIDE_LABEL}: {unknown_path(path)}")
    value = _override_value(raw, field)
    table = {field.section: {field.name: value}} if field.section else {field.name: value}
    return Layer(label=OVERRIDE_LABEL, table=_with_engine_paths(table, Path.cwd()))


def merge(layers: Iterable[Layer]) -> Merged:
    """Later layers win key by key; a list replaces a list."""
    table: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for key, value in layer.table.items():
            if not isinstance(value, dict):
                table[key] = value
                origins[key] = layer.label
                continue
            table.setdefault(key, {}).update(value)
            origins.update((f"{key}.{name}", layer.label) for name in value)
    return Merged(table=table, origins=origins)


def merged_profile(source: Source, overrides: Sequence[str]) -> Merged:
    """A file, its bases and the overrides as one table."""
    return merge([*read_layers(source), *(parse_override(text) for text in overrides)])


def _base(base: object, source: Source) -> Source:
    if not isinstance(base, str):
        raise ProfileError(
            f"{source.label}: extends: {show(base)} is not text; give a shipped name or a relative path"
        )
    try:
        return find_source(base, source.path.parent)
    except ProfileError as error:
        raise ProfileError(f"{source.label}: extends: {error.message}") from None


def _override_value(raw: str, field: Field) -> Any:
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    value = parsed["value"] if parsed.keys() == {"value"} else raw
    # A revision such as 1234567 is text although TOML reads a number.
    return raw if field.is_text and not isinstance(value, str) else value


def _with_engine_paths(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The table with engine files as absolute paths: a run is resumed from other folders too."""
    engine = table.get("engine")
    if not isinstance(engine, dict):
        return table
    files = {
        name: str(absolute(engine[name], folder))
        for name in ENGINE_FILE_FIELDS
        if isinstance(engine.get(name), str) and engine[name]
    }
    return {**table, "engine": {**engine, **files}}
