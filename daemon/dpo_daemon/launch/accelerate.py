"""accelerate's launcher, for engines whose settings stand in accelerate's own file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpo_daemon.launch.launcher import TRAINER, python_module, ranks_environment, trainer_arguments
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.layout import Attempt, RunDirectory


class AccelerateLauncher:
    """torchrun behind accelerate, which hands its file on to the ranks as variables."""

    is_rank = False

    def __init__(self, profile: Profile, run: RunDirectory, attempt: Attempt) -> None:
        self.ranks = profile.engine.gpus_per_node
        self._file = profile.engine.accelerate_file
        self._arguments = trainer_arguments(run, attempt)

    def command(self) -> Sequence[str]:
        """The file unchanged; what is said here is only where the ranks run. Port 0 is a free one."""
        return [
            *python_module("accelerate.commands.launch"),
            *("--config_file", self._file, "--num_processes", str(self.ranks)),
            *("--num_machines", "1", "--machine_rank", "0", "--main_process_port", "0"),
            *("-m", TRAINER, *self._arguments),
        ]

    def environment(self) -> Mapping[str, str]:
        """What accelerate, torchrun and the ranks need."""
        return ranks_environment(self.ranks)
