"""Plan against measurement: like is held against like, whatever comes first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dpo_telemetry import components, events
from dpo_telemetry.budget import Budget, Held, RankBudget, measured_components
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk

WEIGHTS, ADAPTERS = components.POLICY_WEIGHTS, components.ADAPTERS
GRADIENTS, ACTIVATIONS = components.GRADIENTS, components.ACTIVATIONS
PLAN: dict[str, Any] = {
    "per_gpu": [
        {
            "rank": rank,
            "phases": {
                "load": {WEIGHTS: 1000, ADAPTERS: 400, ACTIVATIONS: 300},
                "reference": {WEIGHTS: 1000, ADAPTERS: 200, GRADIENTS: 50, ACTIVATIONS: 100},
                "backward": {WEIGHTS: 1000, ADAPTERS: 200, GRADIENTS: 50, ACTIVATIONS: 500},
                "step": {WEIGHTS: 1000, ADAPTERS: 200, GRADIENTS: 90, ACTIVATIONS: 0},
            },
            "nvml_bytes": {"low": 2000, "high": 3000},
            "cache_fragmentation_bytes": {"low": 100, "high": 300},
            "context_communication_bytes": {"low": 400, "high": 600},
        }
        for rank in range(2)
    ]
}


def memory(phase: str = "train", components: dict[str, int] | None = None, **more: int) -> events.Memory:
    return events.Memory(
        **events.stamp(),
        phase=phase,  # type: ignore[arg-type]
        components={WEIGHTS: 1010, ADAPTERS: 200, GRADIENTS: 50} if components is None else components,
        **more,
    )


def budget_of(*found: events.Memory) -> RankBudget:
    budget = Budget()
    for one in found:
        budget.measure(0, one)
    budget.plan(PLAN)
    held = budget.rank(0)
    assert held is not None
    return held


def exact(planned: int, measured: int) -> Held:
    return Held(
        planned_low_bytes=planned,
        planned_bytes=planned,
        measured_bytes=measured,
        difference_bytes=measured - planned,
    )


def test_standing_components_are_held_against_their_lasting_size_not_against_that_of_loading() -> None:
    found = budget_of(memory("load", {WEIGHTS: 990, ADAPTERS: 200}), memory())
    assert found.components == {
        WEIGHTS: exact(1000, 1010),
        ADAPTERS: exact(200, 200),
        GRADIENTS: exact(50, 50),
    }
    assert found.peaks == {}, "a CPU measures none"


def test_a_peak_is_held_against_the_phases_that_it_went_through() -> None:
    found = budget_of(
        memory("load", {WEIGHTS: 1000, ADAPTERS: 200}, peak_allocated_bytes=1800),
        memory(peak_allocated_bytes=1700),
        memory(peak_allocated_bytes=1760),
        memory(peak_allocated_bytes=1600),
    )
    assert found.peaks == {"load": exact(1700, 1800), "train": exact(1750, 1760)}
    # Loading: 1800 - 1200 against 1700 - 1200; that is more than a step's 1760 - 1260.
    assert found.components[ACTIVATIONS] == exact(500, 600)


@pytest.mark.parametrize(("reserved", "difference"), [(1150, -50), (1300, 0), (1450, 50)])
def test_an_interval_is_missed_by_the_distance_to_its_nearer_end(reserved: int, difference: int) -> None:
    found = budget_of(memory(allocated_bytes=1100, reserved_bytes=reserved))
    assert found.components[components.CACHE_FRAGMENTATION] == Held(
        planned_low_bytes=100,
        planned_bytes=300,
        measured_bytes=reserved - 1100,
        difference_bytes=difference,
    )


def test_what_activations_filled_at_the_peak_is_not_cache_afterwards() -> None:
    after_a_step = memory(peak_allocated_bytes=1760, allocated_bytes=1260, reserved_bytes=1900)
    after_an_evaluation = memory("eval", peak_allocated_bytes=1400, allocated_bytes=1260, reserved_bytes=1950)
    found = budget_of(after_a_step, after_an_evaluation)
    assert found.components[components.CACHE_FRAGMENTATION].measured_bytes == 1950 - 1760
    assert measured_components(after_a_step)[components.CACHE_FRAGMENTATION] == 1900 - 1760


@pytest.mark.parametrize("plan", [{}, {"per_gpu": "no"}, {"per_gpu": [{"phases": {"step": {"a": "b"}}}]}])
def test_a_plan_that_cannot_be_read_plans_nothing(plan: dict[str, Any]) -> None:
    budget = Budget()
    budget.measure(0, memory())
    budget.plan(plan)
    assert (budget.planned, budget.measured, budget.ranks()) == (False, True, [])


def test_a_rank_beyond_the_plan_has_none() -> None:
    budget = Budget()
    budget.plan(PLAN)
    budget.measure(1, memory())
    budget.measure(2, memory())
    assert [held.rank for held in budget.ranks()] == [1]


def test_a_run_brings_plan_ranks_and_cards_together_and_a_new_attempt_starts_anew() -> None:
    def lines(*found: events.Event) -> bytes:
        return b"".join(events.encode(event) for event in found)

    start = events.Start(
        **events.stamp(),
        role="rank",
        host="n1",
        pid=77,
        boot_id="b",
        process_started=1.0,
        rank=1,
        world_size=2,
    )
    card = events.Gpu(
        **events.stamp(), host="n1", index=3, name="H100", process_bytes={"77": 1900, "5": 99_999}
    )
    model = RunModel()
    model.apply(
        [
            Chunk("attempts/001/plan.json", 0, json.dumps(PLAN).encode()),
            Chunk(
                "attempts/001/events/rank-00001.jsonl",
                0,
                lines(start, memory(allocated_bytes=1300, reserved_bytes=1400)),
            ),
            Chunk("attempts/001/events/agent-n1.jsonl", 0, lines(card)),
        ]
    )
    assert model.attempt is not None
    held = model.attempt.budget.rank(1)
    assert held is not None
    assert held.nvml is not None
    assert (held.nvml.measured_bytes, held.nvml.difference_bytes) == (1900, -100)
    assert held.components[components.CONTEXT_COMMUNICATION].measured_bytes == 500
    assert model.gpu_of_rank == {1: ("n1", 3)}
    model.apply([Chunk("attempts/002/plan.json", 0, json.dumps(PLAN).encode())])
    assert model.attempt.budget.ranks() == []
