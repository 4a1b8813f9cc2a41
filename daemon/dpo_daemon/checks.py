"""What can be told before anything is made or started; each failure is one line and exit code 2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dpo_daemon.errors import DaemonError
from dpo_daemon.launch import check_backend
from dpo_profiles.schema import Profile

_DATA_FILES = (".json", ".jsonl", ".parquet")


def check_start(profile: Profile, label: str) -> None:
    """Refuse a profile that cannot be started here; `label` is how the user named it.

    Raises:
        DaemonError: names the profile, the field and the mend.
    """
    check_backend(profile, label)
    _check_path(label, "model.base", profile.model.base, "give the model's folder, or its hub id")
    _check_path(label, "adapter.path", profile.adapter.path, "give the adapter's folder, or leave it empty")
    _check_path(label, "data.name", profile.data.name, "give a .jsonl or .parquet file, or `shipped`")
    if importlib.util.find_spec("torch") is None:
        raise DaemonError("the training stack is not installed; run `pip install 'dpo-deck[train]'`")


def _check_path(label: str, field: str, value: str, mend: str) -> None:
    """A value that reads as a local path has to be there; a hub id is asked for later."""
    local = value.startswith((".", "/", "~")) or value.count("/") > 1 or value.endswith(_DATA_FILES)
    if local and not Path(value).expanduser().exists():
        raise DaemonError(f"{label}: {field}: {value}: there is no such file or folder; {mend}")
