"""How the ranks of one node are started: one launcher a way of starting them."""

from __future__ import annotations

from collections.abc import Callable

from dpo_daemon.errors import DaemonError
from dpo_daemon.launch.accelerate import AccelerateLauncher
from dpo_daemon.launch.launcher import SHUTDOWN_TIMEOUT_S, Launcher, start
from dpo_daemon.launch.single import SingleLauncher
from dpo_daemon.launch.torchrun import TorchrunLauncher
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

__all__ = ["LAUNCHERS", "SHUTDOWN_TIMEOUT_S", "Launcher", "check_backend", "launcher_for", "start"]

LAUNCHERS: dict[str, Callable[[Profile, RunDirectory, Attempt], Launcher]] = {
    "single": SingleLauncher,
    "ddp": TorchrunLauncher,
    "deepspeed-zero3": TorchrunLauncher,
    "fsdp": AccelerateLauncher,
    "fsdp2": TorchrunLauncher,
}
"""By `engine.backend`; a profile with an accelerate file is started by accelerate, which reads it."""


def launcher_for(profile: Profile, run: RunDirectory, attempt: Attempt) -> Launcher:
    """The launcher of a profile's backend.

    Raises:
        DaemonError: there is none for it.
    """
    check_backend(profile, profile.name)
    if profile.engine.accelerate_file:
        return AccelerateLauncher(profile, run, attempt)
    return LAUNCHERS[profile.engine.backend](profile, run, attempt)


def check_backend(profile: Profile, label: str) -> None:
    """Refuse what nothing here can launch; `label` is how the user named the profile.

    Raises:
        DaemonError: one line with the field and what can be launched.
    """
    engine = profile.engine
    if engine.nodes > 1:
        raise DaemonError(
            f"{label}: engine.nodes: is {engine.nodes}, and ranks are launched on one host only; it can be "
            "planned (`dpo-daemon plan`), and rehearsed (`dpo-daemon rehearse`)"
        )
    if engine.backend not in LAUNCHERS:
        known = ", ".join(LAUNCHERS)
        raise DaemonError(f"{label}: engine.backend: {engine.backend!r} cannot be launched; take {known}")
