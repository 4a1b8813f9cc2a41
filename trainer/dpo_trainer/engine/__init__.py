"""Who runs the ranks: everything that differs between training engines is behind `Engine`."""

from __future__ import annotations

from dpo_profiles.schema import Profile
from dpo_trainer.engine.base import Engine
from dpo_trainer.engine.single import SingleEngine
from dpo_trainer.errors import TrainerError

__all__ = ["Engine", "choose"]


def choose(profile: Profile) -> Engine:
    """The engine that the profile names.

    Raises:
        TrainerError: this version has no such engine.
    """
    if profile.engine.backend != "single":
        raise TrainerError(
            f"engine.backend: {profile.engine.backend} is not part of this version; "
            'set engine.backend = "single"'
        )
    if profile.engine.world_size != 1:
        raise TrainerError(
            f'engine.gpus_per_node: {profile.engine.world_size} ranks, and engine.backend "single" '
            "runs one; set nodes and gpus_per_node to 1"
        )
    return SingleEngine(profile.model.compute_dtype)
