"""What the agent asks of a launcher, and what all of them have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dpo_telemetry.rundir.layout import Attempt, RunDirectory

SHUTDOWN_TIMEOUT_S = 1800
"""Time that ranks have from a stop to their end: the step that they are in, an evaluation, and a save.

torchrun's own 30 s would cut off a 72B in its step. Whoever cannot wait has `dpo-daemon stop --now`.
"""
TRAINER = "dpo_trainer"

_FOREIGN_PREFIXES = ("PET_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_")
_FOREIGN = frozenset(
    {
        "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
        "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    }
)  # fmt: skip


class Launcher(Protocol):
    """Says what to run; the agent runs it and is its parent."""

    def command(self) -> Sequence[str]:
        """Program and arguments."""
        ...

    def environment(self) -> Mapping[str, str]:
        """Variables on top of the agent's own."""
        ...

    @property
    def ranks(self) -> int:
        """Ranks that it starts on this host."""
        ...

    @property
    def is_rank(self) -> bool:
        """Whether it is itself the only rank, so that its end is the rank's."""
        ...


def trainer_arguments(run: RunDirectory, attempt: Attempt) -> list[str]:
    """What a rank is called with."""
    return [str(run.path), str(attempt.number)]


def ranks_environment(ranks: int) -> dict[str, str]:
    """Variables for a launcher that is built on torchrun, and for the ranks that inherit them."""
    return {
        # torchrun calls its ranks without -P.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, _cores() // ranks)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT_S),
        # Without it ranks look for each other under the host's name, which may resolve to nothing.
        "PET_LOCAL_ADDR": "127.0.0.1",
        **_gloo_on_loopback(),
    }


def start(launcher: Launcher, log: int) -> subprocess.Popen[bytes]:
    """Start the job in a session of its own, its output appended to the file descriptor `log`.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        list(launcher.command()),
        env={**_without_ranks(os.environ), **launcher.environment()},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def python_module(module: str) -> list[str]:
    """`-P` keeps files of the working directory from shadowing modules."""
    return [sys.executable, "-P", "-m", module]


def _without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """A shell that is itself inside a distributed job must not make our ranks a part of it."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _FOREIGN and not name.startswith(_FOREIGN_PREFIXES)
    }


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gloo_on_loopback() -> dict[str, str]:
    """gloo listens on the address of the host's name, open to others, unless it is told an interface."""
    if "GLOO_SOCKET_IFNAME" in os.environ or not Path("/sys/class/net/lo").exists():
        return {}
    return {"GLOO_SOCKET_IFNAME": "lo"}
