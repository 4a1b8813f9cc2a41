"""Engine files stay native: DeepSpeed's JSON and accelerate's YAML, read here but never changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.source import read_text
from dpo_profiles.text import kind_of, one_line

AUTO = "auto"
"""DeepSpeed files leave a value to the Hugging Face Trainer with this word."""


class EngineFile(msgspec.Struct, frozen=True, kw_only=True):
    """An engine file as it stands."""

    path: Path
    table: dict[str, Any]

    def get(self, path: str) -> Any:
        """The value at `a.b.c`; None where the file does not say, or leaves it to "auto"."""
        value: Any = self.table
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return None if value == AUTO else value


def read_deepspeed(path: Path) -> EngineFile:
    """DeepSpeed's JSON.

    Raises:
        ProfileError: unreadable, no JSON (with line and column), or no object.
    """
    text = read_text(path, str(path))
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ProfileError(
            f"{path}: line {error.lineno}, column {error.colno}: is not JSON: {error.msg}; mend that line"
        ) from None
    except (RecursionError, ValueError) as error:
        raise ProfileError(f"{path}: is not JSON: {one_line(str(error))}; mend the file") from None
    return EngineFile(path=path, table=_table(table, path, "JSON object"))


def read_accelerate(path: Path) -> EngineFile:
    """accelerate's YAML.

    Raises:
        ProfileError: unreadable, no YAML, or no mapping.
    """
    text = read_text(path, str(path))
    try:
        table = msgspec.yaml.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ProfileError(f"{path}: is not YAML: {one_line(str(error))}; mend that line") from None
    return EngineFile(path=path, table=_table(table, path, "YAML mapping"))


def _table(value: Any, path: Path, wanted: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProfileError(f"{path}: holds {kind_of(value)}; give a {wanted}")
    return value
