"""Log lines on stdout: dicts as the Hugging Face Trainer prints them, which any reader replays."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def write_metrics(metrics: Mapping[str, float]) -> None:
    """One dict line; a number that is not finite prints as Python does: nan, inf."""
    _write(repr(dict(metrics)))


def write_message(message: str) -> None:
    """One line of text."""
    _write(message)


def write_summary(summary: Mapping[str, Any]) -> None:
    """One JSON object, the last line of a run."""
    _write(json.dumps({"summary": summary}))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
