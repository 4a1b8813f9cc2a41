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
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.events import NOT_READABLE
from dpo_telemetry.identity import ProcessIdentity, host_name
from dpo_telemetry.rundir.create import write_atomically
from dpo_telemetry.rundir.layout import RunDirectory


class LiveEntry(msgspec.Struct, frozen=True):
    """One file of the register."""

    path: str
    host: str
    """Homes are shared on clusters: another host's entry is neither ours to show nor to drop."""
    process: ProcessIdentity
    """The agent, which lives as long as the job does."""


def _register_dir() -> Path:
    return Path(platformdirs.user_state_dir(APP_NAME)) / "live"


def register(run: RunDirectory, process: ProcessIdentity) -> None:
    """List a run as live for as long as `process` lives."""
    folder = _register_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    entry = LiveEntry(path=str(run.path.absolute()), host=host_name(), process=process)
    write_atomically(folder / f"{run.info().id}.json", msgspec.json.encode(entry))


def unregister(run: RunDirectory) -> None:
    """Take a run off the list; fine when it is not on it."""
    with contextlib.suppress(OSError, TelemetryError):
        (_register_dir() / f"{run.info().id}.json").unlink()


def live_runs() -> list[RunDirectory]:
    """Live runs of this user on this host, oldest first."""
    found = []
    for file in _register_dir().glob("*.json"):
        try:
            entry = msgspec.json.decode(file.read_bytes(), type=LiveEntry)
        except (OSError, *NOT_READABLE):
            continue
        if entry.host != host_name():
            continue
        run = RunDirectory(Path(entry.path))
        if entry.process.alive() and run.run_file.exists():
            with contextlib.suppress(OSError, TelemetryError):
                found.append((run.info().created, run))
        else:
            with contextlib.suppress(OSError):
                file.unlink()
    return [run for _, run in sorted(found, key=lambda pair: (pair[0], pair[1].name))]
