"""Processes that outlive whoever starts them, and trees of processes that end as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from dpo_daemon.errors import DaemonError

READY = "ready"
_PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""


def start_detached(module: str, arguments: Sequence[str]) -> None:
    """Run `python -m MODULE ARGUMENTS --detach` in a session of its own, until it says that it is ready.

    The module forks, so that it is nobody's child, and calls `say_ready` once it does its work.

    Raises:
        DaemonError: it ended before that; the line is what it said last.
    """
    command = [sys.executable, "-P", "-m", module, *arguments, "--detach"]
    starter = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        check=False,
    )
    lines = starter.stdout.decode(errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    if not said or said[-1] != READY:
        why = said[-1].removeprefix("error: ") if said else f"ended without a word ({starter.returncode})"
        raise DaemonError(why)


def detach() -> None:
    """Leave the parent: go on as a child of init, in the session that the starter made."""
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def say_ready(log: Path) -> None:
    """Tell the starter that all is well; from here on stdout and stderr go to `log`."""
    os.write(sys.stdout.fileno(), f"{READY}\n".encode())
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends; False where the kernel has no such thing.

    torchrun puts each rank into a session of its own, so killing its process group misses them.
    """
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def descendants() -> list[psutil.Process]:
    """Processes under the calling one, parents before children."""
    try:
        return psutil.Process().children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def end(processes: Iterable[psutil.Process], grace_s: float) -> None:
    """SIGTERM, then after `grace_s` seconds SIGKILL; returns when all are gone or have been killed."""
    waiting = list(processes)
    terminate(waiting)
    _, alive = psutil.wait_procs(waiting, timeout=grace_s)
    kill(alive)
    psutil.wait_procs(alive, timeout=grace_s)


def terminate(processes: Iterable[psutil.Process]) -> None:
    """SIGTERM to each that is still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


def any_running(processes: Iterable[psutil.Process]) -> bool:
    """Whether one is still there; children that have ended are reaped."""
    _, alive = psutil.wait_procs(processes, timeout=0)
    return bool(alive)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each that is still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
