"""torchrun, for engines that are told nothing by their launcher but who they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpo_daemon.launch.launcher import TRAINER, python_module, ranks_environment, trainer_arguments
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.layout import Attempt, RunDirectory


class TorchrunLauncher:
    """The ranks of one host, which meet on its loopback."""

    is_rank = False

    def __init__(self, profile: Profile, run: RunDirectory, attempt: Attempt) -> None:
        self.ranks = profile.engine.gpus_per_node
        self._arguments = trainer_arguments(run, attempt)

    def command(self) -> Sequence[str]:
        """torchrun as a module; `--standalone` takes a free port, so that runs do not meet on one."""
        return [
            *python_module("torch.distributed.run"),
            *("--nnodes", "1", "--nproc-per-node", str(self.ranks), "--standalone"),
            *("-m", TRAINER, *self._arguments),
        ]

    def environment(self) -> Mapping[str, str]:
        """What torchrun and its ranks need."""
        return ranks_environment(self.ranks)
