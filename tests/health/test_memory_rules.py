"""What memory says: above its plan, growing step after step, or uneven over the ranks."""

from __future__ import annotations

from typing import Any

import pytest

from dpo_telemetry import components, events
from dpo_telemetry.budget import Budget
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.memory_watch import MemoryWatch

GIB = 1 << 30
MIB = 1 << 20
RANKS = 4


def plan(**components_bytes: int) -> dict[str, Any]:
    phases = dict.fromkeys(("load", "reference", "forward", "backward", "step"), components_bytes)
    rank = {"phases": phases, "nvml_bytes": {"low": 10 * GIB, "high": 30 * GIB}}
    return {"per_gpu": [rank] * RANKS}


class Watched:
    """Measurements of an attempt, as the reader hands them on."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.budget.plan(plan(policy_weights=20 * GIB, activations=10 * GIB))
        self.watch = MemoryWatch(self.budget)

    def measure(self, rank: int, step: int, weights: int = 20 * GIB, **sizes: int) -> None:
        memory = events.Memory(
            **events.stamp(),
            phase="train",
            step=step,
            components={components.POLICY_WEIGHTS: weights},
            **sizes,
        )
        self.budget.measure(rank, memory)
        self.watch.feed(rank, memory)

    def alerts(self) -> list[HealthAlert]:
        return self.watch.alerts()

    def codes(self) -> list[str]:
        return [alert.code for alert in self.alerts()]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_what_stays_within_its_plan_is_silent(watched: Watched) -> None:
    for rank in range(RANKS):
        for step in range(1, 100):
            noise = (step * 37 % 11) * 10 * MIB
            watched.measure(
                rank, step, allocated_bytes=20 * GIB + noise, peak_allocated_bytes=29 * GIB + noise
            )
    assert watched.codes() == []


@pytest.mark.parametrize(("over", "codes"), [(900 * MIB, []), (1200 * MIB, ["vram_over_plan"])])
def test_a_component_above_its_plan_is_named_with_its_rank(
    watched: Watched, over: int, codes: list[str]
) -> None:
    watched.measure(0, 1)
    watched.measure(2, 1, weights=20 * GIB + over)
    watched.measure(3, 1, weights=20 * GIB + over // 2)
    assert watched.codes() == codes
    for alert in watched.alerts():
        assert alert.metric == components.POLICY_WEIGHTS
        assert "policy_weights of rank 2 is 21.2 GiB" in alert.message


def test_nvml_above_the_planned_interval_is_told(watched: Watched) -> None:
    watched.measure(0, 1)
    watched.budget.see_process(0, 31 * GIB)
    assert watched.codes() == []
    watched.budget.see_process(0, 32 * GIB)
    (alert,) = watched.alerts()
    assert (alert.code, alert.metric) == ("vram_over_plan", "nvml")


def test_a_small_model_above_its_plan_is_not_worth_a_word() -> None:
    watched = Watched()
    watched.budget.plan(plan(policy_weights=100 * MIB))
    watched.measure(0, 1, weights=200 * MIB)
    assert watched.codes() == []


def test_what_grows_between_steps_and_never_shrinks_leaks(watched: Watched) -> None:
    for step in range(1, 61):
        watched.measure(1, step, allocated_bytes=20 * GIB + step * 8 * MIB)
    (alert,) = watched.alerts()
    assert (alert.code, alert.step, alert.last_step) == ("vram_leak", 1, 51)
    assert "8 MiB a step" in alert.message


@pytest.mark.parametrize("shape", ["grows and settles", "saw", "slow"])
def test_growth_that_ends_or_comes_back_or_is_next_to_nothing_is_no_leak(
    watched: Watched, shape: str
) -> None:
    for step in range(1, 200):
        grown = {
            "grows and settles": min(step, 25) * 100 * MIB,
            "saw": step % 40 * 100 * MIB,
            "slow": step * MIB // 2,
        }[shape]
        watched.measure(0, step, allocated_bytes=20 * GIB + grown)
    assert watched.codes() == []


def test_one_rank_far_above_the_others_is_an_imbalance_after_some_steps(watched: Watched) -> None:
    for step in range(1, 6):
        assert watched.codes() == []
        for rank in range(RANKS):
            watched.measure(rank, step, peak_allocated_bytes=(29 if rank == 0 else 24) * GIB)
    (alert,) = watched.alerts()
    assert alert.code == "vram_imbalance"
    assert alert.message.startswith("rank 0 peaks at 29 GiB, rank 1 at 24 GiB")


def test_a_single_rank_has_nothing_to_be_uneven_with(watched: Watched) -> None:
    for step in range(1, 20):
        watched.measure(0, step, peak_allocated_bytes=29 * GIB)
    assert watched.codes() == []


def test_measurements_told_again_at_the_same_step_are_no_growth(watched: Watched) -> None:
    for number in range(80):
        watched.measure(0, 5, allocated_bytes=20 * GIB + number * 50 * MIB)
    assert watched.codes() == []
