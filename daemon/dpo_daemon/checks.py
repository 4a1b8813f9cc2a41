"""What can be told before anything is made or started; each failure is one line and exit code 2."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import msgspec

from dpo_daemon.errors import DaemonError
from dpo_daemon.launch import check_backend
from dpo_profiles.schema import Profile

PAIR_COLUMNS = ("chosen", "rejected")
_DATA_FILES = (".json", ".jsonl", ".parquet")


def check_start(profile: Profile, label: str) -> None:
    """Refuse a profile that cannot be started here; `label` is how the user named it.

    Raises:
        DaemonError: names the profile, the field and the mend.
    """
    check_trainable(profile, label)
    check_backend(profile, label)
    _check_path(label, "model.base", profile.model.base, "give the model's folder, or its hub id")
    _check_path(label, "adapter.path", profile.adapter.path, "give the adapter's folder, or leave it empty")
    _check_path(label, "data.name", profile.data.name, "give a .jsonl or .parquet file, or `shipped`")
    _check_rows(label, Path(os.path.expanduser(profile.data.name)))
    check_training_stack()


def check_training_stack() -> None:
    """Refuse to start ranks where they have nothing to train with.

    Raises:
        DaemonError: names what to install.
    """
    if importlib.util.find_spec("torch") is None:
        raise DaemonError("the training stack is not installed; run `pip install 'dpo-deck[train]'`")


def check_trainable(profile: Profile, label: str) -> None:
    """Refuse a profile that describes what is only planned, to compare with.

    Raises:
        DaemonError: names the field.
    """
    for field, value in (
        ("adapter.kind", profile.adapter.kind),
        ("model.parameters", profile.model.parameters),
    ):
        if value not in ("lora", 0):
            raise DaemonError(
                f"{label}: {field}: {value} is for a plan only (`dpo-daemon plan`); a LoRA adapter is what is trained"
            )


def _check_path(label: str, field: str, value: str, mend: str) -> None:
    """A value that reads as a local path has to be there; a hub id is asked for later."""
    local = value.startswith((".", "/", "~")) or value.count("/") > 1 or value.endswith(_DATA_FILES)
    if local and not os.path.exists(os.path.expanduser(value)):
        raise DaemonError(f"{label}: {field}: {value}: there is no such file or folder; {mend}")


def _check_rows(label: str, path: Path) -> None:
    """JSON lines are looked into: a file without pairs would otherwise fail behind a closed terminal."""
    if path.suffix != ".jsonl" or not path.is_file():
        return
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), None)
    if first is None:
        raise DaemonError(f"{label}: data.name: {path}: is empty; give a file with a preference pair a line")
    try:
        row = msgspec.json.decode(first, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise DaemonError(
            f"{label}: data.name: {path}: its first line is no JSON object; give a preference pair a line"
        ) from None
    if missing := [column for column in PAIR_COLUMNS if column not in row]:
        raise DaemonError(
            f"{label}: data.name: {path}: has no column {' and no column '.join(missing)}; "
            f"a pair needs {' and '.join(PAIR_COLUMNS)}"
        )
