"""How the ranks of one node are started: one launcher a backend."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from dpo_daemon.errors import DaemonError
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.layout import Attempt, RunDirectory


class Launcher(Protocol):
    """Says what to run; the agent runs it and is its parent."""

    def command(self) -> Sequence[str]:
        """Program and arguments."""
        ...

    def environment(self) -> Mapping[str, str]:
        """Variables on top of the agent's own."""
        ...


class SingleLauncher:
    """One rank, started directly."""

    def __init__(self, run: RunDirectory, attempt: Attempt) -> None:
        self._arguments = [str(run.path), str(attempt.number)]

    def command(self) -> Sequence[str]:
        """The trainer; `-P` keeps files of the working directory from shadowing modules."""
        return [sys.executable, "-P", "-m", "dpo_trainer", *self._arguments]

    def environment(self) -> Mapping[str, str]:
        """RANK tells the rank's process from its helpers; LOCAL_RANK would make accelerate wait for others."""
        return {"RANK": "0", "PYTHONUNBUFFERED": "1"}


LAUNCHERS: dict[str, type[SingleLauncher]] = {"single": SingleLauncher}
"""By `engine.backend`."""


def launcher_for(profile: Profile, run: RunDirectory, attempt: Attempt) -> Launcher:
    """The launcher of a profile's backend.

    Raises:
        DaemonError: there is none for it.
    """
    check_backend(profile, profile.name)
    return LAUNCHERS[profile.engine.backend](run, attempt)


def check_backend(profile: Profile, label: str) -> None:
    """Refuse a backend that nothing here can launch; `label` is how the user named the profile.

    Raises:
        DaemonError: one line with the field and what can be launched.
    """
    if profile.engine.backend not in LAUNCHERS:
        known = ", ".join(LAUNCHERS)
        raise DaemonError(
            f"{label}: engine.backend: {profile.engine.backend!r} cannot be launched here; "
            f"it can be planned (`dpo-daemon plan`), and {known} can be launched"
        )


def start(launcher: Launcher, log: int) -> subprocess.Popen[bytes]:
    """Start the job in a session of its own, its output appended to the file descriptor `log`.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        list(launcher.command()),
        env={**os.environ, **launcher.environment()},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
