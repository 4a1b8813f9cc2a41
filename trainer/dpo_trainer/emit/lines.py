"""Log lines on stdout: dicts as the Hugging Face Trainer prints them, which any reader replays."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from dpo_telemetry import events


def write_metrics(metrics: Mapping[str, float]) -> None:
    """One dict line; a number that is not finite prints as Python does: nan, inf."""
    _write(repr(dict(metrics)))


def write_message(message: str) -> None:
    """One line of text."""
    _write(message)


def write_summary(summary: Mapping[str, Any]) -> None:
    """One JSON object, the last line of a run; a number that is not finite is a string, as in events."""
    _write(json.dumps({"summary": _as_json(summary)}, allow_nan=False))


def _as_json(value: object) -> object:
    if isinstance(value, float):
        return events.to_number(value)
    if isinstance(value, Mapping):
        return {name: _as_json(inner) for name, inner in value.items()}
    return value


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
