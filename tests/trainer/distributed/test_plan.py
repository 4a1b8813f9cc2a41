"""The plan's standing bytes are those of the real tensors on real ranks, and the run is held against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo_profiles.plan.make import make_plan
from dpo_profiles.schema import Profile
from dpo_telemetry import components
from dpo_telemetry.budget import Budget, RankBudget
from dpo_telemetry.events import Memory

from .conftest import DEEPSPEED, SHARDING, WORLD, Ended, MakeProfile, Workshop

Learned = Callable[[str], Ended]

STANDING = {
    components.POLICY_WEIGHTS,
    components.ADAPTERS,
    components.GRADIENTS,
    components.OPTIMIZER_STATES,
}
TOLERANCE = 0.01


def held(ended: Ended, profile: Profile) -> list[RankBudget]:
    budget = Budget()
    budget.plan(json.loads(make_plan(profile).to_json()))
    for rank in range(WORLD):
        for memory in ended.of(Memory, rank):
            budget.measure(rank, memory)
    return budget.ranks()


def assert_as_planned(ranks: list[RankBudget]) -> None:
    assert [found.rank for found in ranks] == [0, 1]
    for found in ranks:
        assert found.components.keys() == STANDING
        for name, one in found.components.items():
            if found.rank == 0 or name != components.OPTIMIZER_STATES:
                assert one.measured_bytes == pytest.approx(one.planned_bytes, rel=TOLERANCE), name
            else:
                # torch pads a parameter's part and its gradient to the first rank's size, and moments not.
                assert one.measured_bytes <= one.planned_bytes * (1 + TOLERANCE)


@pytest.mark.parametrize("backend", SHARDING)
def test_what_a_rank_holds_is_what_was_planned(
    learned: Learned, profile_of: MakeProfile, backend: str
) -> None:
    assert_as_planned(held(learned(backend), profile_of(backend)))


@pytest.fixture
def uneven(workshop: Workshop, profile_of: MakeProfile) -> Callable[[str], Profile]:
    """bfloat16, ranks of an adapter that no two GPUs share evenly, and small parameters that ZeRO-3 keeps."""

    def write(folder: Path) -> None:
        zero = {**DEEPSPEED["zero_optimization"], "stage3_param_persistence_threshold": 500}
        file: dict[str, Any] = {**DEEPSPEED, "zero_optimization": zero, "bf16": {"enabled": "auto"}}
        (folder / "deepspeed.json").write_text(json.dumps(file))

    folder = workshop.once("uneven", write)

    def make(backend: str) -> Profile:
        zero3 = backend == "deepspeed-zero3"
        return profile_of(
            backend,
            model={"compute_dtype": "bfloat16"},
            quantization={"storage_dtype": "uint8" if zero3 else "bfloat16", "double_quantization": False},
            adapter={"path": "", "r": 5},
            train={"max_steps": 1},
            **({"engine": {"deepspeed_file": str(folder / "deepspeed.json")}} if zero3 else {}),
        )

    return make


@pytest.mark.parametrize("backend", SHARDING)
def test_padding_persistent_parameters_and_float32_masters_are_planned(
    workshop: Workshop, uneven: Callable[[str], Profile], backend: str
) -> None:
    profile = uneven(backend)
    ended = workshop.kept(f"uneven-{backend}", lambda: profile)
    assert ended.codes == [0, 0], ended.log()
    assert_as_planned(held(ended, profile))
