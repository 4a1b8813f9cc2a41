"""What the rules conclude: each fires on its pattern, and none on a healthy run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from dpo_telemetry.events import Alert
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import Diagnosis
from dpo_telemetry.health.findings import findings
from dpo_telemetry.health.kind import LN2
from dpo_telemetry.health.rule import Context
from dpo_telemetry.series.columns import Table

Row = dict[str, float]


def diagnose(
    rows: Sequence[Row],
    evaluations: Sequence[Row] = (),
    context: Context | None = None,
    *,
    first_step: int = 1,
    every: int = 1,
    at_once: bool = True,
) -> Diagnosis:
    """Diagnose rows at steps `first_step`, + `every`, ...; an evaluation carries its own "step"."""
    diagnosis = Diagnosis(context or Context())
    train, evaluation = Table(), Table()
    for at, row in enumerate(rows):
        train.append(first_step + at * every, row.items())
        if not at_once:
            diagnosis.feed(train.tail(len(train) - 1))
    for row in evaluations:
        evaluation.append(int(row["step"]), [(name, value) for name, value in row.items() if name != "step"])
    for table in (train, evaluation) if at_once else (evaluation,):
        diagnosis.feed(table.rows(table.effective_rows()))
    return diagnosis


def codes(diagnosis: Diagnosis) -> list[str]:
    return [alert.code for alert in diagnosis.alerts()]


def alert(diagnosis: Diagnosis, code: str) -> HealthAlert:
    (found,) = [alert for alert in diagnosis.alerts() if alert.code == code]
    return found


def healthy(steps: int = 200, seed: int = 0, warm_up: int = 20, noise: float = 0.02) -> list[Row]:
    """A run that learns: noisy margins that grow once the learning rate is up."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, steps + 1):
        rate = 5e-6 * min(1.0, step / warm_up)
        learned = max(0.0, step - 1 - warm_up / 2)
        margin = 0.8 * (1 - math.exp(-learned / 80)) + (noise * rng.normal() if step > 1 else 0.0)
        chosen = 0.3 * margin
        rows.append(
            {
                "loss": math.log1p(math.exp(-margin)), "grad_norm": 2.0 + rng.normal() / 4, "learning_rate": rate,
                "rewards/chosen": chosen, "rewards/rejected": chosen - margin, "rewards/margins": margin,
                "rewards/accuracies": float(margin > 0), "logps/chosen": -211.37 + rng.normal(),
                "logps/rejected": -240.11 + rng.normal(), "logits/chosen": 0.13, "epoch": step / 100,
            }
        )  # fmt: skip
    return rows


def still(steps: int, **changed: float) -> list[Row]:
    """A run in which nothing moves, with real log-probs and gradients."""
    row = {
        "loss": LN2, "grad_norm": 2.0, "learning_rate": 5e-6, "rewards/chosen": 0.0, "rewards/rejected": 0.0,
        "rewards/margins": 0.0, "logps/chosen": -211.37, "logps/rejected": -240.11,
    }  # fmt: skip
    return [row | {name.replace("__", "/"): value for name, value in changed.items()}] * steps


@pytest.mark.parametrize("seed", range(20))
def test_healthy_noise_raises_no_alert_at_any_moment(seed: int) -> None:
    rows = healthy(seed=seed)
    for seen in (1, 10, 49, 50, 51, 60, 75, 100, 200):
        assert codes(diagnose(rows[:seen])) == []


def test_a_long_warm_up_raises_no_alert() -> None:
    assert codes(diagnose(healthy(steps=150, warm_up=400, noise=0.002))) == []


def test_gaps_between_evaluations_and_few_columns_raise_no_alert() -> None:
    evaluations = [
        {"step": step, "eval_loss": 0.69 - step / 1000, "eval_rewards/chosen": 0.0} for step in (0, 100)
    ]
    assert codes(diagnose(healthy(), evaluations)) == []
    assert codes(diagnose([{"loss": row["loss"]} for row in healthy()])) == []
    assert codes(diagnose([{"epoch": 0.1}, {"learning_rate": 0.0}])) == []
    assert codes(Diagnosis(Context())) == []


def test_rows_logged_every_ten_steps_raise_no_alert() -> None:
    assert codes(diagnose(healthy()[9::10], first_step=10, every=10)) == []


def test_a_loss_that_is_not_finite_is_critical_and_names_its_steps() -> None:
    rows = healthy(60)
    for at in (30, 31, 40):
        rows[at] = rows[at] | {"loss": math.nan}
    found = alert(diagnose(rows), "nonfinite")
    assert (found.severity, found.metric, found.step, found.last_step, found.count) == (
        "critical",
        "loss",
        31,
        41,
        3,
    )


@pytest.mark.parametrize(("metric", "severity"), [("grad_norm", "critical"), ("logits/rejected", "warning")])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_weighs_by_its_metric(metric: str, severity: str, value: float) -> None:
    found = alert(diagnose([{"loss": 0.7, metric: value}] * 6), "nonfinite")
    assert (found.severity, found.metric) == (severity, metric)


def test_an_evaluation_that_is_not_finite_is_seen() -> None:
    found = alert(diagnose(healthy(10), [{"step": 5, "eval_loss": math.inf}]), "nonfinite")
    assert (found.severity, found.metric, found.step) == ("critical", "eval_loss", 5)


def test_log_probs_of_exactly_0_are_empty_completions() -> None:
    found = alert(diagnose(still(3, logps__chosen=0.0, logps__rejected=0.0)), "empty_completions")
    assert (found.severity, found.count, found.step, found.last_step) == ("critical", 3, 1, 3)
    assert "max_length" in found.message


def test_a_few_empty_completions_are_a_warning() -> None:
    rows = healthy(100)
    rows[50] = rows[50] | {"logps/rejected": 0.0}
    assert alert(diagnose(rows), "empty_completions").severity == "warning"


@pytest.mark.parametrize(
    ("reward", "severity"), [(1e-4, None), (-0.0015, None), (0.02, "warning"), (-0.4, "critical")]
)
def test_rewards_before_the_first_update_betray_another_reference(
    reward: float, severity: str | None
) -> None:
    rows = healthy(20)
    rows[0] = rows[0] | {"rewards/rejected": reward}
    found = [a.severity for a in diagnose(rows).alerts() if a.code == "reference_mismatch"]
    assert found == ([] if severity is None else [severity])


def test_an_evaluation_before_the_first_update_betrays_it_too() -> None:
    evaluations = [{"step": 0, "eval_rewards/chosen": 0.3}, {"step": 50, "eval_rewards/chosen": 0.9}]
    found = alert(diagnose(healthy(), evaluations), "reference_mismatch")
    assert (found.metric, found.step) == ("eval_rewards/chosen", 0)


def test_dropout_on_a_trained_adapter_excuses_training_rows_and_no_evaluation() -> None:
    rows = healthy(20)
    rows[0] = rows[0] | {"rewards/chosen": 0.3}
    context = Context(dropout_on_trained_adapter=True)
    assert codes(diagnose(rows, context=context)) == []
    evaluations = [{"step": 0, "eval_rewards/chosen": 0.3}]
    assert codes(diagnose(rows, evaluations, context)) == ["reference_mismatch"]


def test_counted_rows_may_start_behind_many_updates() -> None:
    rows = [row | {"rewards/chosen": row["rewards/chosen"] + 0.2} for row in healthy(20)]
    assert codes(diagnose(rows, context=Context(steps_known=False))) == []
    rows = [row | {"rewards/chosen": -7.5} for row in rows]
    found = alert(diagnose(rows, context=Context(steps_known=False)), "reference_mismatch")
    assert (found.severity, "in the first row" in found.message) == ("warning", True)


def test_rewards_that_stay_0_behind_the_first_update_are_a_frozen_adapter() -> None:
    found = alert(diagnose(still(20)), "adapter_frozen")
    assert (found.severity, found.step, found.last_step, found.count) == ("critical", 2, 20, 19)
    assert codes(diagnose(still(5))) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 0.0}, {"logps__chosen": 0.0, "logps__rejected": 0.0},
        {"logps__chosen": -536.0, "logps__rejected": -532.0}, {"rewards__chosen": math.nan}, {"rewards__chosen": 1e-6},
    ],
)  # fmt: skip
def test_rewards_of_0_with_another_cause_are_no_frozen_adapter(changed: Row) -> None:
    assert "adapter_frozen" not in codes(diagnose(still(20, **changed)))


def test_a_run_that_moves_late_was_not_frozen() -> None:
    assert "adapter_frozen" not in codes(diagnose([*still(20), *still(1, rewards__chosen=0.01)]))


@pytest.mark.parametrize("seed", range(10))
def test_a_loss_that_stays_that_of_a_coin_toss_is_not_falling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        row | {"loss": LN2 + 0.005 * rng.normal(), "rewards/chosen": 0.005 * rng.normal()}
        for row in still(120)
    ]
    assert "loss_not_falling" not in codes(diagnose(rows[:49]))
    found = alert(diagnose(rows), "loss_not_falling")
    assert (found.severity, found.metric) == ("warning", "loss")
    assert found.step is not None
    assert 50 <= found.step <= 60
    assert abs(found.evidence["loss"] - LN2) < 0.005


def test_a_loss_that_blows_up_is_not_falling_either() -> None:
    rows = [row | {"loss": LN2 + at / 50} for at, row in enumerate(healthy(100))]
    assert "loss_not_falling" in codes(diagnose(rows))


def test_losses_as_large_as_floats_go_are_judged_without_an_overflow() -> None:
    rows = [row | {"loss": 1e308} for row in healthy(80)]
    rows[0] = rows[0] | {"loss": LN2}
    assert "loss_not_falling" in codes(diagnose(rows))


def test_another_loss_or_a_run_without_rewards_is_not_judged_by_ln_2() -> None:
    rows = [row | {"rewards/chosen": 0.005} for row in still(120)]
    assert codes(diagnose(rows, context=Context(loss_kind="ipo"))) == []
    assert codes(diagnose([{"loss": LN2}] * 120)) == []
    assert codes(diagnose([row | {"loss": 2.3} for row in rows])) == []


def rounded(value: float, grid: float) -> float:
    return grid * round(value / grid)


@pytest.mark.parametrize(("magnitude", "grid"), [(-540.0, 4.0), (-100.0, 0.5), (-5000.0, 32.0)])
def test_log_probs_on_the_grid_of_bf16_are_found_with_their_grid(magnitude: float, grid: float) -> None:
    rng = np.random.default_rng(1)
    rows = [
        row
        | {name: rounded(magnitude + 30 * rng.normal(), grid) for name in ("logps/chosen", "logps/rejected")}
        for row in healthy(50)
    ]
    found = alert(diagnose(rows), "bf16_rounding")
    assert f"multiples of {grid:g}" in found.message
    assert found.count == 50


def test_rounding_warns_only_where_it_hides_the_margins() -> None:
    rows = [
        row | {"logps/chosen": -536.0 - 4 * at, "logps/rejected": -532.0, "rewards/margins": 0.5}
        for at, row in enumerate(healthy(5))
    ]
    assert alert(diagnose(rows), "bf16_rounding").severity == "info"
    assert alert(diagnose(rows, context=Context(beta=0.5)), "bf16_rounding").severity == "warning"


@pytest.mark.parametrize("magnitude", [-211.4, -1234.0, -4321.0, -12340.0])
def test_four_printed_digits_are_no_rounding_to_bf16(magnitude: float) -> None:
    rng = np.random.default_rng(2)
    names = ("logps/chosen", "logps/rejected")
    rows = [
        row | {name: float(f"{magnitude * (1 + rng.normal() / 10):.4g}") for name in names}
        for row in healthy(60)
    ]
    for seen in range(1, 61):
        assert codes(diagnose(rows[:seen])) == []


def test_printed_digits_do_not_hide_rounding_to_bf16() -> None:
    rng = np.random.default_rng(3)
    names = ("logps/chosen", "logps/rejected")
    rows = [
        row | {name: float(f"{rounded(-1500 + 100 * rng.normal(), 8.0):.4g}") for name in names}
        for row in healthy(20)
    ]
    assert "multiples of 8" in alert(diagnose(rows), "bf16_rounding").message


def test_a_healthy_run_fed_one_by_one_is_healthy() -> None:
    assert codes(diagnose(healthy(), at_once=False)) == []


def test_alerts_come_with_the_gravest_first() -> None:
    rows = [*healthy(30), {"loss": math.nan, "logits/chosen": math.nan}]
    rows[3] = rows[3] | {"logits/rejected": math.nan}
    assert [found.metric for found in diagnose(rows).alerts()] == ["loss", "logits/rejected", "logits/chosen"]


def test_truncated_completions_explain_all_that_follows_from_them() -> None:
    rows = still(60, grad_norm=0.0, logps__chosen=0.0, logps__rejected=0.0, logits__rejected=math.nan)
    (found,) = diagnose(rows).findings()
    assert found.cause == "completions truncated away"
    assert found.codes == ["empty_completions", "nonfinite", "loss_not_falling", "grad_vanishing"]
    assert "max_length" in found.text
    assert "max_length" in found.try_


def test_a_loss_that_is_not_finite_is_never_explained_away() -> None:
    rows = still(60, loss=math.nan, logps__chosen=0.0, logps__rejected=0.0)
    assert [found.codes for found in diagnose(rows).findings()] == [["empty_completions"], ["nonfinite"]]


def test_a_frozen_adapter_explains_the_loss() -> None:
    (found,) = diagnose(still(60)).findings()
    assert found.codes == ["adapter_frozen", "loss_not_falling"]


def test_what_is_for_information_is_no_finding_and_what_is_unknown_is_one() -> None:
    recorded = Alert(v=1, t=1.0, m=1.0, code="fan_slow", severity="critical", message="fan 3 turns slowly")
    info = HealthAlert(code="bf16_rounding", severity="info", message="rounded")
    (found,) = findings([info, HealthAlert.of_event(recorded)])
    assert (found.cause, found.codes, found.text) == ("fan slow", ["fan_slow"], "Fan 3 turns slowly.")
    assert findings([]) == []


def test_every_alert_says_what_to_try() -> None:
    rows = still(60, loss=math.nan, logps__chosen=0.0) + still(60)
    for found in diagnose(rows, [{"step": 0, "eval_rewards/chosen": 3.0}]).alerts():
        assert found.advice
        assert found.message
