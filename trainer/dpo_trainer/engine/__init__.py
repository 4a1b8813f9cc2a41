"""Who runs the ranks: everything that differs between training engines is behind `Engine`."""

from __future__ import annotations

import torch

from dpo_profiles.schema import Profile
from dpo_trainer.engine.base import Engine
from dpo_trainer.engine.ddp import DdpEngine
from dpo_trainer.engine.fsdp2 import Fsdp2Engine
from dpo_trainer.engine.ranks import Ranks, launched
from dpo_trainer.engine.single import SingleEngine
from dpo_trainer.engine.zero3 import Zero3Engine
from dpo_trainer.errors import TrainerError

__all__ = ["Engine", "Ranks", "choose"]

ENGINES: dict[str, type[Engine]] = {
    "single": SingleEngine,
    "ddp": DdpEngine,
    "deepspeed-zero3": Zero3Engine,
    "fsdp2": Fsdp2Engine,
}
"""By `engine.backend`."""


def choose(profile: Profile) -> Engine:
    """The engine that the profile names, for this rank.

    Raises:
        TrainerError: there is no such engine here, or the launcher started another number of ranks.
    """
    backend = profile.engine.backend
    if backend not in ENGINES:
        raise TrainerError(
            f"engine.backend: {backend} is planned here and not run; take fsdp2, which shards the same way"
        )
    ranks = Ranks.from_environment()
    if backend != "single" and not launched():
        raise TrainerError(
            f"engine.backend: {backend} needs a launcher that starts its ranks; use `dpo-daemon start`"
        )
    if ranks.world_size != profile.engine.world_size:
        raise TrainerError(
            f"engine.gpus_per_node: the profile says {profile.engine.world_size} ranks, and the launcher "
            f"started {ranks.world_size}; start it with `dpo-daemon start`"
        )
    _require_gpus(profile, ranks)
    return ENGINES[backend](profile, ranks)


def _require_gpus(profile: Profile, ranks: Ranks) -> None:
    visible = torch.cuda.device_count()
    if visible and ranks.local_rank >= visible:
        raise TrainerError(
            f"engine.gpus_per_node: rank {ranks.rank} needs a GPU of its own and {visible} are visible; take "
            f"{visible}, or see what CUDA_VISIBLE_DEVICES leaves out"
        )
    if not visible and profile.hardware.gpu:
        raise TrainerError(
            f"hardware.gpu: the profile is for {profile.hardware.gpu}, and torch {torch.__version__} sees no GPU; "
            'install its CUDA build, or set hardware.gpu to "" to compute on the CPU'
        )
