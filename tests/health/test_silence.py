"""Health is met with silence, whatever a log looks like."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpo_telemetry.health.diagnosis import Diagnosis
from dpo_telemetry.health.kind import LN2
from dpo_telemetry.health.rule import Context
from dpo_telemetry.series.columns import Table

from .simulated import Row, alarms, diagnosed, learning, simulate


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("pairs", [1, 4, 64])
def test_a_run_that_learns_raises_nothing_at_any_moment(seed: int, pairs: int) -> None:
    rows = simulate(learning(300), chosen_nats=-0.3 * learning(300), pairs=pairs, seed=seed)
    for seen in (1, 2, 5, 10, 30, 49, 50, 51, 60, 75, 100, 200, 300):
        assert alarms(diagnosed(rows[:seen])) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_warm_up_of_half_the_run_raises_nothing(seed: int) -> None:
    margins = 0.002 * np.arange(200) + 10 * np.maximum(0, np.arange(200) - 100) / 100
    rows = simulate(margins, rate=1e-6 * np.minimum(1, np.arange(200) / 100), scatter_nats=0.5, seed=seed)
    for seen in range(10, 201, 10):
        assert alarms(diagnosed(rows[:seen])) == []


def test_a_converged_run_is_not_stalled() -> None:
    rows = simulate(learning(600, reach=25.0, pace=40.0))
    assert alarms(diagnosed(rows)) == []


def test_a_schedule_that_ends_with_the_run_raises_nothing() -> None:
    at = np.arange(200)
    for rate in (1e-5 * (1 - at / 199), 5e-6 * (1 + np.cos(np.pi * at / 199))):
        assert alarms(diagnosed(simulate(learning(200), rate=rate))) == []


def test_single_gradient_spikes_raise_nothing() -> None:
    norms = np.full(200, 2.0)
    norms[[20, 70, 71, 150]] = [900.0, 400.0, 350.0, 5000.0]
    assert alarms(diagnosed(simulate(learning(200), changed={"grad_norm": norms}))) == []


def test_a_single_loss_spike_raises_nothing() -> None:
    rows = simulate(learning(200))
    rows[120]["loss"] = 9.0
    assert alarms(diagnosed(rows)) == []


@pytest.mark.parametrize("every", [2, 5, 10, 25])
def test_rows_that_sum_up_several_steps_raise_nothing(every: int) -> None:
    rows = simulate(learning(600, pace=200.0))
    means = [
        {name: float(np.mean([row[name] for row in rows[at : at + every]])) for name in rows[0]}
        for at in range(0, len(rows), every)
    ]
    assert alarms(diagnosed(means, first_step=every, every=every)) == []


def test_a_log_that_begins_in_the_middle_raises_nothing() -> None:
    rows = simulate(learning(400), chosen_nats=-30.0)[200:]
    for log in (rows, [{name: row[name] for name in row if name != "epoch"} for row in rows]):
        assert alarms(diagnosed(log, first_step=201)) == []
    counted = Context(steps_known=False)
    assert alarms(diagnosed(rows, context=counted)) == []


def test_a_resumed_run_whose_steps_repeat_raises_nothing() -> None:
    rows = simulate(learning(200), seed=3)
    again = simulate(learning(200), seed=4)
    table = Table()
    for at in range(120):
        table.append(at + 1, rows[at].items(), attempt=1)
    for at in range(100, 200):
        table.append(at + 1, again[at].items(), attempt=2)
    diagnosis = Diagnosis(Context())
    diagnosis.feed(table.rows(table.effective_rows()))
    assert alarms(diagnosis) == []


@pytest.mark.parametrize(
    "names",
    [
        ("loss",),
        ("loss", "grad_norm", "learning_rate"),
        ("rewards/margins",),
        ("epoch",),
        ("rewards/accuracies", "loss"),
    ],
)
def test_logs_with_few_columns_raise_nothing(names: tuple[str, ...]) -> None:
    rows: list[Row] = [{name: row[name] for name in names} for row in simulate(learning(200))]
    assert alarms(diagnosed(rows)) == []


def test_gaps_between_evaluations_raise_nothing() -> None:
    rows = simulate(learning(300))
    evaluations = {
        step: {
            "loss": LN2 - 0.2 * (1 - math.exp(-step / 100)),
            "rewards/accuracies": 0.7,
            "rewards/margins": 0.4,
        }
        for step in (100, 110, 290)
    }
    evaluations[0] = {"loss": LN2, "rewards/accuracies": 0.0, "rewards/margins": 0.0}
    assert alarms(diagnosed(rows, evaluations)) == []


@pytest.mark.parametrize(
    ("loss_kind", "beta", "start"),
    [("ipo", 0.1, 25.0), ("ipo", 0.5, 1.0), ("hinge", 0.1, 1.0), ("kto", 0.1, 0.5), ("sppo_hard", 0.1, 50.0)],
)
@pytest.mark.parametrize("told", [True, False])
def test_other_losses_start_where_they_start(loss_kind: str, beta: float, start: float, told: bool) -> None:
    fallen = start * (1 - 0.4 * learning(120) / 12)
    rows = simulate(learning(120), changed={"loss": fallen})
    context = Context(loss_kind=loss_kind, beta=beta) if told else Context()
    assert alarms(diagnosed(rows, context=context)) == []


def test_a_loss_summed_over_accumulation_steps_is_no_corrupted_base() -> None:
    rows = [row | {"loss": 16 * row["loss"]} for row in simulate(learning(120))]
    assert alarms(diagnosed(rows)) == []


def test_losses_that_know_no_reference_are_not_held_against_one() -> None:
    rng = np.random.default_rng(5)
    rows = []
    for at in range(120):
        chosen, rejected = -1.2 + 0.05 * rng.normal() + at / 400, -1.4 + 0.05 * rng.normal() - at / 400
        rows.append(
            {
                "loss": 1.9 - at / 200 + 0.05 * rng.normal(), "grad_norm": 1.0, "learning_rate": 8e-6,
                "rewards/chosen": 0.1 * chosen, "rewards/rejected": 0.1 * rejected,
                "rewards/margins": 0.1 * (chosen - rejected), "rewards/accuracies": 0.7,
                "logps/chosen": chosen, "logps/rejected": rejected,
            }
        )  # fmt: skip
    for more in ({}, {"nll_loss": 1.5}, {"log_odds_chosen": 0.3, "log_odds_ratio": -0.6}):
        assert alarms(diagnosed([row | more for row in rows])) == []


def test_a_supervised_log_is_judged_by_the_rules_that_apply() -> None:
    rng = np.random.default_rng(6)
    rows = [
        {"loss": 1.2 + 0.7 * math.exp(-at / 30) + 0.1 * rng.normal(), "grad_norm": 0.9, "learning_rate": 2e-5}
        for at in range(200)
    ]
    assert alarms(diagnosed(rows)) == []
    from_scratch = [row | {"loss": 10.8 * math.exp(-at / 100) + 0.5} for at, row in enumerate(rows)]
    assert alarms(diagnosed(from_scratch)) == []
    assert alarms(diagnosed([row | {"grad_norm": math.nan} for row in rows])) == ["nonfinite"]


def test_reinforcement_learning_is_not_held_to_a_falling_loss() -> None:
    rng = np.random.default_rng(7)
    rows = [
        {
            "loss": 0.02 * rng.normal(), "grad_norm": 0.3, "learning_rate": 1e-6, "reward": 0.4 + at / 500,
            "reward_std": 0.2, "kl": at / 1000, "completions/mean_length": 200.0, "rewards/format/mean": 0.9,
        }
        for at in range(200)
    ]  # fmt: skip
    rows[60]["loss"] = rows[61]["loss"] = rows[62]["loss"] = 5.0
    assert alarms(diagnosed(rows)) == []


def test_a_reward_model_is_judged_by_the_rules_that_apply() -> None:
    rows = [
        {
            "loss": LN2,
            "grad_norm": 4.0,
            "learning_rate": 1e-5,
            "accuracy": 0.7,
            "margin": 0.3,
            "mean_reward": 0.1,
        }
    ] * 100
    assert alarms(diagnosed(rows)) == []


def test_a_loss_scaler_that_finds_its_scale_is_a_note() -> None:
    rows = simulate(learning(100))
    for at in (0, 1, 2):
        rows[at]["grad_norm"] = math.inf
    assert [(alert.code, alert.severity) for alert in diagnosed(rows).alerts()] == [("nonfinite", "info")]
    rows[60]["grad_norm"] = math.inf
    assert alarms(diagnosed(rows)) == ["nonfinite"]
