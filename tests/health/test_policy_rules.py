"""Rules on where the policy has gone: displacement, over-optimisation, overfitting, length."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpo_telemetry.health.kind import LN2
from dpo_telemetry.health.rule import Context

from .simulated import Row, alarms, alert, diagnosed, learning, simulate


def test_both_rewards_falling_while_margins_grow_is_a_note() -> None:
    rows = simulate(learning(150), chosen_nats=-1.5 * learning(150))
    found = alert(diagnosed(rows), "likelihood_displacement")
    assert (found.severity, found.metric) == ("info", "rewards/chosen")
    assert found.evidence["reward_rejected"] < found.evidence["reward_chosen"] < 0
    assert alarms(diagnosed(rows)) == []


def test_chosen_answers_that_collapse_are_a_warning() -> None:
    rows = simulate(learning(200), chosen_nats=-25 * learning(200))
    found = alert(diagnosed(rows), "likelihood_displacement")
    assert (found.severity, found.metric) == ("warning", "logps/chosen")
    assert found.evidence["logps_chosen"] < 2 * found.evidence["start"]


def test_chosen_answers_that_recover_take_the_note_back() -> None:
    chosen = np.append(-0.2 * np.arange(60), np.linspace(-12, 4, 140))
    rows = simulate(learning(200), chosen_nats=chosen)
    assert alert(diagnosed(rows[:80]), "likelihood_displacement").severity == "info"
    assert diagnosed(rows).alerts() == []


def test_chosen_rewards_that_rise_are_no_displacement() -> None:
    rows = simulate(learning(150), chosen_nats=0.4 * learning(150))
    assert diagnosed(rows).alerts() == []


def test_huge_margins_with_every_pair_right_are_over_optimisation() -> None:
    rows = simulate(learning(150, reach=250.0, pace=20.0))
    found = alert(diagnosed(rows, context=Context(beta=0.1)), "over_optimisation")
    assert found.evidence["margin"] >= 10
    assert "250 nats" in found.message or "24" in found.message
    wrong = [row | {"rewards/accuracies": 0.9} for row in rows]
    assert "over_optimisation" not in alarms(diagnosed(wrong))


@pytest.mark.parametrize("climb", [0.3, 1.5])
def test_an_evaluation_that_climbs_while_training_falls_is_overfitting(climb: float) -> None:
    rows = simulate(learning(300, reach=60.0))
    evaluations: dict[int, Row] = {
        step: {"loss": 0.55 + abs(LN2 - 0.55) * max(0, 1 - step / 60) + climb * max(0, step - 60) / 240}
        for step in range(0, 301, 30)
    }
    found = alert(diagnosed(rows, evaluations), "overfitting")
    assert found.evidence["best_eval_loss"] == pytest.approx(0.55)
    assert found.evidence["loss"] < 0.5
    assert found.last_step == 300


def test_one_bad_evaluation_or_a_training_loss_that_climbs_too_is_no_overfitting() -> None:
    rows = simulate(learning(300, reach=60.0))
    evaluations: dict[int, Row] = {step: {"loss": 0.5} for step in range(0, 301, 30)}
    evaluations[300] = {"loss": 1.4}
    assert alarms(diagnosed(rows, evaluations)) == []
    evaluations[150] = {"loss": 1.4}
    evaluations[300] = {"loss": 0.5}
    assert alarms(diagnosed(rows, evaluations)) == []
    rising = [row | {"loss": 0.5 + at / 200} for at, row in enumerate(rows)]
    evaluations = {step: {"loss": 0.5 + step / 200} for step in range(0, 301, 30)}
    assert "overfitting" not in alarms(diagnosed(rising, evaluations))


def with_lengths(rows: list[Row], chosen: float, rejected: float) -> list[Row]:
    rng = np.random.default_rng(1)
    return [
        row
        | {
            "completions/chosen_length": chosen * math.exp(0.1 * rng.normal()),
            "completions/rejected_length": rejected * math.exp(0.1 * rng.normal()),
        }
        for row in rows
    ]


def test_logged_lengths_that_tell_the_pairs_apart_are_a_length_bias() -> None:
    rows = simulate(learning(120, reach=60.0, pace=20.0))
    found = alert(diagnosed(with_lengths(rows, 300, 120)), "length_bias")
    assert (found.severity, found.metric) == ("warning", "completions/chosen_length")
    assert found.evidence["ratio"] == pytest.approx(2.5, rel=0.1)
    assert "chosen answers are" in found.message
    assert "rejected answers are" in alert(diagnosed(with_lengths(rows, 120, 300)), "length_bias").message
    assert alarms(diagnosed(with_lengths(rows, 300, 280))) == []


def test_long_answers_that_do_not_tell_the_pairs_apart_are_none() -> None:
    rows = simulate(learning(120, reach=8.0), scatter_nats=12.0)
    assert alarms(diagnosed(with_lengths(rows, 300, 120))) == []


def test_without_lengths_log_probs_are_only_a_hint() -> None:
    rows = simulate(learning(120, reach=60.0, pace=20.0), changed={"logps/chosen": -500.0})
    found = alert(diagnosed(rows), "length_bias")
    assert (found.severity, found.metric) == ("info", "logps/chosen")
