"""Runs that are live on this host, listed in the user's state directory.

So `attach`, `list` and `stop` find them from any working directory. An entry is a hint: it is
dropped when the folder it names is gone or the processes it names have ended.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import platformdirs

from dpo_telemetry.cli import APP_NAME
from dpo_telemetry.identity import ProcessIdentity
from dpo_telemetry.rundir.create import write_atomically
from dpo_telemetry.rundir.layout import RunDirectory


class LiveEntry(msgspec.Struct, frozen=True):
    """One file of the register."""

    path: str
    process: ProcessIdentity
    """The agent, which lives as long as the job does."""


def _register_dir() -> Path:
    return Path(platformdirs.user_state_dir(APP_NAME, ensure_exists=True)) / "live"


def register(run: RunDirectory, process: ProcessIdentity) -> None:
    """List a run as live for as long as `process` lives."""
    folder = _register_dir()
    folder.mkdir(mode=0o700, exist_ok=True)
    entry = LiveEntry(path=str(run.path.absolute()), process=process)
    write_atomically(folder / f"{run.info().id}.json", msgspec.json.encode(entry))


def unregister(run: RunDirectory) -> None:
    """Take a run off the list; fine when it is not on it."""
    with contextlib.suppress(OSError):
        (_register_dir() / f"{run.info().id}.json").unlink()


def live_runs() -> list[RunDirectory]:
    """Live runs of this user on this host, oldest first."""
    found = []
    for file in sorted(_register_dir().glob("*.json")):
        try:
            entry = msgspec.json.decode(file.read_bytes(), type=LiveEntry)
        except (OSError, msgspec.MsgspecError):
            continue
        run = RunDirectory(Path(entry.path))
        if entry.process.alive() and run.run_file.exists():
            found.append(run)
        else:
            file.unlink(missing_ok=True)
    return sorted(found, key=lambda run: run.info().created)
