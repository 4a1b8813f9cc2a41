"""Rules on whether a run learns, and the right thing: each fires on its pattern and names its figures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dpo_telemetry.health.kind import LN2
from dpo_telemetry.health.rule import Context
from dpo_telemetry.health.thresholds import Thresholds

from .simulated import Row, alarms, alert, diagnosed, learning, simulate


@pytest.mark.parametrize("seed", range(5))
def test_margins_that_sink_are_swapped_labels(seed: int) -> None:
    rows = simulate(-learning(120), seed=seed)
    found = alert(diagnosed(rows), "labels_swapped")
    assert (found.severity, found.metric) == ("critical", "rewards/accuracies")
    assert found.evidence["accuracy"] <= 0.4
    assert found.evidence["margin"] < 0
    assert diagnosed(rows).findings()[0].codes[0] == "labels_swapped"


def test_swapped_labels_show_in_rows_that_sum_up_several_steps() -> None:
    rows = simulate(-learning(120), pairs=64)[4::5]
    assert "labels_swapped" in alarms(diagnosed(rows, first_step=5, every=5))


def test_an_evaluation_that_goes_the_other_way_than_training_is_swapped_labels() -> None:
    rows = simulate(learning(120))
    evaluations: dict[int, Row] = {
        step: {"rewards/accuracies": 0.25, "rewards/margins": -0.004 * step, "loss": 0.7 + step / 500}
        for step in (40, 80, 120)
    }
    found = alert(diagnosed(rows, evaluations), "labels_swapped")
    assert (found.metric, found.last_step) == ("eval_rewards/accuracies", 120)
    level = {step: row | {"rewards/margins": -0.001, "loss": 0.7} for step, row in evaluations.items()}
    assert alarms(diagnosed(rows, level)) == []


def test_too_few_pairs_to_tell_are_no_swapped_labels() -> None:
    changed: dict[str, npt.ArrayLike] = {
        "rewards/accuracies": np.tile([1.0, 0.0, 0.0, 1.0, 0.0], 24),
        "rewards/margins": -0.5,
    }
    rows = simulate(learning(120), changed=changed)
    assert "labels_swapped" not in alarms(diagnosed(rows))


def test_rows_of_margin_0_do_not_lower_an_accuracy() -> None:
    empty = np.arange(120) % 2 == 0
    changed = {
        "rewards/accuracies": np.where(empty, 0.0, 0.8),
        "rewards/margins": np.where(empty, 0.0, 0.6),
        "rewards/chosen": -0.4 * (np.arange(120) > 0),
    }
    assert "accuracy_low" not in alarms(diagnosed(simulate(learning(120), changed=changed)))


def test_pairs_of_margin_0_are_no_wrong_pairs() -> None:
    rows = simulate(np.zeros(80), changed={"rewards/chosen": 1e-9, "rewards/accuracies": 0.0})
    assert not {"labels_swapped", "accuracy_low"} & set(alarms(diagnosed(rows)))


@pytest.mark.parametrize("seed", range(5))
def test_rewards_that_move_without_telling_pairs_apart_are_a_low_accuracy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    margins = 0.5 * rng.normal(size=150)
    margins[:4] = 0.0
    rows = simulate(margins, scatter_nats=30.0, chosen_nats=-3 * learning(150) / 12, pairs=16, seed=seed)
    found = alert(diagnosed(rows), "accuracy_low")
    assert found.severity == "warning"
    assert 0.3 < found.evidence["accuracy"] < 0.55
    assert "labels_swapped" not in alarms(diagnosed(rows))


def test_a_low_accuracy_against_another_reference_means_nothing() -> None:
    margins = np.random.default_rng(1).normal(size=150)
    rows = simulate(margins, scatter_nats=10.0, chosen_nats=-30.0, pairs=16)
    assert "reference_mismatch" in alarms(diagnosed(rows))
    assert "accuracy_low" not in alarms(diagnosed(rows))


def test_a_low_accuracy_that_recovers_is_taken_back() -> None:
    margins = np.append(np.zeros(60) + 0.01, 0.3 * np.arange(120))
    rows = simulate(
        margins, scatter_nats=30.0, chosen_nats=-4.0 * np.minimum(1, np.arange(180) / 5), pairs=16
    )
    rows[0]["rewards/chosen"] = rows[0]["rewards/rejected"] = rows[0]["rewards/margins"] = 0.0
    flat = [row | {"rewards/accuracies": 0.5} for row in rows[:60]]
    assert "accuracy_low" in alarms(diagnosed(flat))
    assert "accuracy_low" not in alarms(diagnosed([*flat, *rows[60:]]))


def test_a_high_accuracy_with_a_margin_near_0_is_a_beta_too_small() -> None:
    rows = simulate(learning(120, reach=20.0), beta=0.001, scatter_nats=4.0)
    found = alert(diagnosed(rows, context=Context(beta=0.001)), "margin_small")
    assert found.evidence["margin"] < 0.05
    assert found.evidence["accuracy"] >= 0.8
    assert "margin_small" not in alarms(diagnosed(simulate(learning(120, reach=20.0), scatter_nats=4.0)))


def test_a_margin_that_is_on_its_way_is_not_small_yet() -> None:
    rows = simulate(0.01 * np.arange(120.0), scatter_nats=0.01)
    for seen in range(50, 121):
        assert "margin_small" not in alarms(diagnosed(rows[:seen]))


def test_a_learning_rate_that_is_never_above_0_is_critical_and_explains_the_rest() -> None:
    rows = simulate(np.zeros(100), rate=np.zeros(100))
    found = alert(diagnosed(rows), "lr_zero")
    assert (found.severity, found.count, found.last_step) == ("critical", 100, 100)
    (finding,) = diagnosed(rows).findings()
    assert finding.codes == ["lr_zero", "loss_not_falling"]


def test_a_learning_rate_of_0_in_the_middle_is_found_and_taken_back_when_it_rises() -> None:
    rate = np.full(120, 1e-5)
    rate[60:80] = 0
    rows = simulate(learning(120), rate=rate)
    assert alert(diagnosed(rows[:70]), "lr_zero").severity == "warning"
    assert alarms(diagnosed(rows)) == []


@pytest.mark.parametrize("zeros", [1, 2, 4])
def test_a_few_rows_of_learning_rate_0_are_a_warm_up_or_an_end(zeros: int) -> None:
    rate = np.full(100, 1e-5)
    rate[:zeros] = rate[-zeros:] = 0
    assert alarms(diagnosed(simulate(learning(100), rate=rate))) == []


def test_a_schedule_that_ended_before_the_run_is_a_stall() -> None:
    rate = 1e-5 * np.maximum(1e-9, 1 - np.arange(200) / 80)
    margins = np.minimum(learning(200), learning(200)[80])
    found = alert(diagnosed(simulate(margins / 3, rate=rate)), "stalled")
    assert (found.metric, found.evidence["rows"]) == ("learning_rate", 120)
    low = simulate(margins * 4, rate=rate)
    assert "stalled" not in alarms(diagnosed(low))


def test_margins_that_stop_near_the_start_at_full_learning_rate_are_a_stall() -> None:
    margins = np.minimum(0.025 * np.arange(300), 1.0)
    rows = simulate(margins, scatter_nats=8.0, pairs=1024)
    found = alert(diagnosed(rows), "stalled")
    assert found.metric == "rewards/margins"
    assert 0.08 < found.evidence["margin"] < 0.12
    cooled = simulate(
        margins, scatter_nats=8.0, pairs=1024, rate=1e-5 * np.append(np.ones(60), np.full(240, 0.1))
    )
    assert "stalled" not in alarms(diagnosed(cooled))


def test_margins_of_pairs_seen_before_that_stop_are_a_stall() -> None:
    margins = np.minimum(0.05 * np.arange(300), 6.0)
    epochs = np.arange(1, 301) / 100
    rows = simulate(margins, scatter_nats=4.0, pairs=64, changed={"epoch": epochs})
    assert alert(diagnosed(rows), "stalled").metric == "rewards/margins"
    first_epoch = simulate(margins, scatter_nats=4.0, pairs=64, changed={"epoch": epochs / 4})
    assert "stalled" not in alarms(diagnosed(first_epoch))
    growing = simulate(0.04 * np.arange(300), scatter_nats=4.0, pairs=64, changed={"epoch": epochs})
    assert "stalled" not in alarms(diagnosed(growing))


def test_a_plateau_far_below_the_start_is_convergence() -> None:
    margins = np.minimum(0.2 * np.arange(300), 8.0)
    assert "stalled" not in alarms(diagnosed(simulate(margins, scatter_nats=8.0, pairs=1024)))


def test_noise_that_leaves_it_open_whether_margins_grow_is_no_stall() -> None:
    margins = np.minimum(0.1 * np.arange(300), 4.0)
    assert "stalled" not in alarms(diagnosed(simulate(margins, scatter_nats=40.0, pairs=2)))


def test_thresholds_move_what_is_found() -> None:
    rows = simulate(learning(120, reach=20.0), scatter_nats=4.0)
    assert alarms(diagnosed(rows)) == []
    strict = Context(
        thresholds=Thresholds(small_margin=10.0, over_margin=0.5, over_accuracy=0.6, over_loss=1.0)
    )
    assert {"margin_small", "over_optimisation"} <= set(alarms(diagnosed(rows, context=strict)))


def test_a_run_of_few_long_steps_that_learns_nothing_is_found_by_its_steps() -> None:
    rng = np.random.default_rng(2)
    rows = simulate(0.02 * rng.normal(size=15), pairs=64, scatter_nats=0.2, rate=np.full(15, 1e-7))
    assert "loss_not_falling" not in alarms(diagnosed(rows))
    found = alert(diagnosed(rows, first_step=10, every=10), "loss_not_falling")
    assert abs(found.evidence["loss"] - LN2) < 0.003
