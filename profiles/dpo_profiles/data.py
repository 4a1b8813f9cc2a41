"""The preference pairs that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

SHIPPED = "shipped"
"""`data.name` of the pairs below, whatever lies in the working directory."""
COLUMNS = ("source", "prompt", "question", "chosen", "rejected")
"""Columns of the shipped pairs, which are those of mlabonne/orpo-dpo-mix-40k."""


def shipped_pairs_path() -> Path:
    """The JSON lines file that `SHIPPED` means."""
    return Path(str(resources.files("dpo_profiles"))) / "data" / "preference_pairs.jsonl"
