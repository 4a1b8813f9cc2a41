"""One rank, started directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpo_daemon.launch.launcher import TRAINER, python_module, trainer_arguments
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.layout import Attempt, RunDirectory


class SingleLauncher:
    """The trainer itself."""

    ranks = 1
    is_rank = True

    def __init__(self, profile: Profile, run: RunDirectory, attempt: Attempt) -> None:
        self._arguments = trainer_arguments(run, attempt)

    def command(self) -> Sequence[str]:
        """The trainer."""
        return [*python_module(TRAINER), *self._arguments]

    def environment(self) -> Mapping[str, str]:
        """RANK tells the rank's process from its helpers; LOCAL_RANK would make accelerate wait for others."""
        return {"RANK": "0", "PYTHONUNBUFFERED": "1"}
