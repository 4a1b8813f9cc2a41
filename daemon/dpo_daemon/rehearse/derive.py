"""The profile of a rehearsal: the profile's own, as far as it fits onto what is here."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dpo_daemon.rehearse.prepare import Prepared
from dpo_profiles.engine_files import read_deepspeed
from dpo_profiles.engine_rules import deepspeed_contradictions
from dpo_profiles.errors import ProfileError
from dpo_profiles.schema import Data, Hardware, Profile

STEPS = 2
"""The first one is resumed from, the second one is made twice."""
CPU_RANKS = 2
NAME_LIMIT = 64
"""Characters of a profile's name."""


def ranks_here(profile: Profile, gpus: int) -> int:
    """Ranks that a rehearsal takes where nobody says: one a GPU, two on a CPU, one where there is one."""
    if profile.engine.backend == "single":
        return 1
    return gpus or CPU_RANKS


def on_these_ranks(profile: Profile, ranks: int) -> Profile:
    """The profile on one host with `ranks` ranks.

    Raises:
        ProfileError: its DeepSpeed file holds for another number of ranks only.
    """
    replace = msgspec.structs.replace
    found = replace(
        profile,
        name=f"rehearsal-{profile.name}"[:NAME_LIMIT],
        engine=replace(profile.engine, nodes=1, gpus_per_node=ranks),
        hardware=Hardware(),
        train=replace(profile.train, max_steps=STEPS),
    )
    if found.engine.deepspeed_file:
        file = read_deepspeed(Path(found.engine.deepspeed_file))
        if problem := deepspeed_contradictions(found, file):
            raise ProfileError(
                f"{profile.name}: engine.deepspeed_file: {problem}, or rehearse with the ranks that it is for "
                "(--ranks)"
            )
    return found


def with_stand_ins(profile: Profile, prepared: Prepared) -> Profile:
    """The profile with what the preparation made, evaluating and saving at every step."""
    replace, data = msgspec.structs.replace, profile.data
    fraction, pairs = data.heldout_fraction, data.heldout_pairs
    if not fraction and not pairs:
        pairs = CPU_RANKS * profile.engine.world_size
    return replace(
        profile,
        model=replace(profile.model, base=prepared.model, revision=""),
        adapter=replace(profile.adapter, path=prepared.adapter),
        data=replace(
            data,
            name=prepared.data,
            split=Data().split,
            revision="",
            heldout_fraction=fraction,
            heldout_pairs=pairs,
        ),
        eval=replace(profile.eval, every_steps=1),
        save=replace(profile.save, every_steps=1, keep_last=0),
        # Warming up, the first step would change nothing, and a resume that loses the adapter would not show.
        schedule=replace(profile.schedule, warmup_ratio=0.0),
        alerts=replace(profile.alerts, **dict.fromkeys(profile.alerts.__struct_fields__, "stop")),
    )
