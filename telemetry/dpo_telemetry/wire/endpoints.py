"""Where a run's sockets lie, and whether that place can be trusted.

A socket in a folder that only its owner may enter needs no password: the kernel keeps
everyone else out. So the folder is checked before anything is bound or connected in it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.rundir.layout import RunDirectory

MAX_SOCKET_PATH_BYTES = 107
"""What a Unix socket address holds, its terminating zero taken off."""


@dataclass(frozen=True)
class Endpoints:
    """The sockets of one run."""

    folder: Path

    @property
    def publish(self) -> Path:
        """PUB: deltas and heartbeats."""
        return self.folder / "publish"

    @property
    def watch(self) -> Path:
        """ROUTER: hello, snapshot, read, series."""
        return self.folder / "watch"

    @property
    def control(self) -> Path:
        """ROUTER: control requests."""
        return self.folder / "control"

    @property
    def lock(self) -> Path:
        """Held by the keeper that serves the run."""
        return self.folder / "lock"


def address(path: Path) -> str:
    """A socket path as ZeroMQ takes it."""
    return f"ipc://{path}"


def candidate_folders() -> list[Path]:
    """Folders that may hold a user's sockets, best first."""
    uid = os.getuid()
    variable = os.environ.get("XDG_RUNTIME_DIR")
    runtime = [Path(variable)] if variable else []
    return [folder / "dpo" for folder in [*runtime, Path(f"/run/user/{uid}")] if folder.is_dir()] + [
        Path(f"/tmp/dpo-{uid}")
    ]


def prepare(run_id: str) -> Endpoints:
    """The endpoints of a run whose keeper is about to bind, in a folder made and checked.

    Raises:
        TelemetryError: no folder can be used; the line names the last one.
    """
    reasons = []
    for folder in candidate_folders():
        endpoints = _endpoints(folder, run_id)
        try:
            _check_length(endpoints.publish)
            for part in (folder, endpoints.folder):
                _make_private(part)
        except TelemetryError as error:
            reasons.append(error.message)
            continue
        return endpoints
    raise TelemetryError(reasons[-1])


def of_run(run: RunDirectory) -> Endpoints | None:
    """The endpoints at which this run's keeper listens; None when none does.

    Raises:
        TelemetryError: this is no run directory, or the sockets lie where others could swap them.
    """
    for folder in candidate_folders():
        endpoints = _endpoints(folder, run.info().id)
        try:
            endpoints.folder.lstat()
        except OSError:
            continue  # not there, or in a folder of another user, where ours cannot be
        for part in (folder, endpoints.folder):
            check_private(part)
        if listens(endpoints.watch):
            return endpoints
    return None


def listens(path: Path) -> bool:
    """Whether a process listens at this socket.

    ZeroMQ tries for ever and says nothing; a plain connect tells at once.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def check_private(folder: Path) -> None:
    """Refuse a folder that another user owns or may enter.

    Raises:
        TelemetryError: one line with the folder and the mend.
    """
    try:
        status = folder.lstat()
    except OSError as error:
        raise TelemetryError(f"{folder}: cannot be used for sockets: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise TelemetryError(f"{folder}: is not a folder; remove it, sockets belong there")
    if status.st_uid != os.getuid():
        raise TelemetryError(f"{folder}: belongs to user {status.st_uid}; remove it or set XDG_RUNTIME_DIR")
    if status.st_mode & 0o077:
        raise TelemetryError(f"{folder}: others may enter it; run `chmod 700 {folder}`")


def _endpoints(folder: Path, run_id: str) -> Endpoints:
    return Endpoints(folder / hashlib.sha256(run_id.encode()).hexdigest()[:12])


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise TelemetryError(f"{folder}: cannot be made for sockets: {error.strerror}") from None
    check_private(folder)


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise TelemetryError(
            f"{path}: longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket address; "
            "set XDG_RUNTIME_DIR to a shorter folder"
        )
