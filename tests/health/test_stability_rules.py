"""Rules on losses and gradients: each fires on its pattern, and not on the noise that looks like it."""

from __future__ import annotations

import numpy as np
import pytest

from dpo_telemetry.health.kind import LN2
from dpo_telemetry.health.rule import Context

from .simulated import Row, alarms, alert, diagnosed, learning, simulate


def test_a_loss_of_13_where_ln_2_is_expected_is_a_corrupted_base() -> None:
    rows = [row | {"loss": 13.0 + row["loss"] / 10} for row in simulate(learning(60) / 50)]
    found = alert(diagnosed(rows), "base_corrupted")
    assert (found.severity, found.step) == ("critical", 1)
    assert found.evidence["expected"] == pytest.approx(LN2, abs=1e-5)
    assert "0.6931 is expected" in found.message


@pytest.mark.parametrize(
    ("loss_kind", "beta", "loss"), [("ipo", 0.1, 300.0), ("hinge", 0.1, 14.0), ("kto", 0.1, 9.0)]
)
def test_the_start_of_the_told_loss_is_the_measure(loss_kind: str, beta: float, loss: float) -> None:
    rows = simulate(learning(60) / 50, changed={"loss": loss})
    assert "base_corrupted" in alarms(diagnosed(rows, context=Context(loss_kind=loss_kind, beta=beta)))


def test_log_probs_that_are_a_multiple_of_the_references_are_a_corrupted_base() -> None:
    rows = simulate(learning(60) / 50, chosen_nats=-900.0)
    found = diagnosed(rows).findings()[0]
    assert found.cause == "base model corrupted"
    assert found.codes[:2] == ["base_corrupted", "reference_mismatch"]
    assert "base_corrupted" not in alarms(diagnosed(simulate(learning(60), chosen_nats=-60.0)))


def test_a_language_models_loss_worse_than_guessing_is_a_corrupted_base() -> None:
    rows: list[Row] = [{"loss": 13.1, "grad_norm": 2.0, "learning_rate": 1e-5}] * 5
    assert "worse than guessing" in alert(diagnosed(rows), "base_corrupted").message
    assert alarms(diagnosed([row | {"loss": 11.9} for row in rows])) == []


def test_a_loss_of_twice_the_entropy_that_does_not_fall_is_a_corrupted_base() -> None:
    rows: list[Row] = [{"loss": 4.9, "entropy": 1.9, "grad_norm": 2.0, "learning_rate": 1e-5}] * 30
    found = alert(diagnosed(rows), "base_corrupted")
    assert found.evidence == {"loss": 4.9, "expected": 1.9}
    falling = [row | {"loss": 4.9 - at / 10} for at, row in enumerate(rows)]
    assert alarms(diagnosed(falling)) == []


def test_several_losses_far_above_their_level_are_spikes() -> None:
    rows = simulate(learning(200))
    for at, loss in ((120, 6.0), (123, 9.0), (124, 4.0), (127, 7.5), (131, 5.0)):
        rows[at]["loss"] = loss
    found = alert(diagnosed(rows), "loss_spike")
    assert (found.severity, found.evidence["highest"]) == ("warning", 9.0)
    assert 121 <= (found.step or 0) <= 132
    assert "loss_spike" in alarms(diagnosed([*rows, *simulate(learning(100))])), "what happened stays told"


def test_spikes_far_apart_are_noise() -> None:
    rows = simulate(learning(400))
    for at in range(50, 400, 40):
        rows[at]["loss"] = 8.0
    assert alarms(diagnosed(rows)) == []


def test_a_run_that_was_as_high_all_along_has_no_spikes() -> None:
    rng = np.random.default_rng(3)
    loss = np.where(rng.random(800) < 0.12, 3.0 + 3 * rng.random(800), 0.4 + 0.1 * rng.random(800))
    loss[:2] = LN2
    assert "loss_spike" not in alarms(diagnosed(simulate(learning(800), changed={"loss": loss})))


def test_a_loss_that_had_fallen_and_climbs_again_is_not_one_that_never_fell() -> None:
    loss = np.append(np.linspace(LN2, 0.4, 80), np.linspace(0.4, 1.5, 80))
    assert "loss_not_falling" not in alarms(diagnosed(simulate(learning(160), changed={"loss": loss})))


def test_norms_of_0_from_first_to_last_beside_a_loss_that_falls_are_the_loggers() -> None:
    rows = simulate(learning(150, reach=40.0), changed={"grad_norm": 0.0})
    for seen in range(5, 151):
        assert "grad_vanishing" not in alarms(diagnosed(rows[:seen]))


def test_a_gradient_that_goes_out_while_the_loss_is_far_from_0_is_vanishing() -> None:
    norms = np.where(np.arange(150) < 60, 2.0, 0.0)
    found = alert(diagnosed(simulate(learning(150), changed={"grad_norm": norms})), "grad_vanishing")
    assert found.step == 70


def test_a_loss_that_climbs_slowly_is_no_spike() -> None:
    rows = [row | {"loss": row["loss"] + at / 30} for at, row in enumerate(simulate(learning(150)))]
    assert "loss_spike" not in alarms(diagnosed(rows))


def test_an_update_that_throws_the_policy_away_is_a_spike() -> None:
    thrown = np.arange(120) >= 60
    loss = np.where(thrown, 1.1, 0.55) + 0.2 * np.random.default_rng(1).random(120)
    changed = {
        "loss": loss,
        "logps/chosen": np.where(thrown, -600.0, -211.0),
        "rewards/chosen": thrown * -39.0,
    }
    found = alert(diagnosed(simulate(learning(120), changed=changed)), "loss_spike")
    assert found.evidence["logps"] < 1.8 * found.evidence["logps_before"]
    falling = {**changed, "loss": np.where(thrown, 0.2, 0.55)}
    assert "loss_spike" not in alarms(diagnosed(simulate(learning(120), changed=falling)))


@pytest.mark.parametrize("norm", [0.0, 1e-7])
def test_no_gradient_beside_a_loss_that_stays_is_vanishing(norm: float) -> None:
    rows = simulate(np.linspace(0, 0.02, 60), scatter_nats=0.0, changed={"grad_norm": norm})
    found = alert(diagnosed(rows), "grad_vanishing")
    assert (found.severity, found.step, found.last_step) == ("critical", 25, 60)
    assert "grad_vanishing" not in alarms(diagnosed([row | {"learning_rate": 0.0} for row in rows]))


def test_a_gradient_that_fades_because_the_loss_did_is_health() -> None:
    rows = simulate(learning(200, reach=90.0), changed={"grad_norm": 2.0 * np.exp(-np.arange(200) / 8)})
    assert "grad_vanishing" not in alarms(diagnosed(rows))


def test_gradients_of_hundreds_that_were_units_are_exploding() -> None:
    norms = 2.0 * np.exp(np.arange(150) / 15)
    found = alert(diagnosed(simulate(learning(150), changed={"grad_norm": norms})), "grad_exploding")
    assert found.evidence["grad_norm"] > 100
    assert found.evidence["start"] == pytest.approx(2.0)


def test_gradients_that_were_large_from_the_start_are_the_scale_of_the_loss() -> None:
    assert alarms(diagnosed(simulate(learning(150), changed={"grad_norm": 400.0}))) == []


def test_an_explosion_stays_told_until_gradients_are_small_again() -> None:
    norms = np.full(150, 2.0)
    norms[50:80:2] = 600.0
    rows = simulate(learning(150), changed={"grad_norm": norms})
    told = [seen for seen in range(45, 150) if "grad_exploding" in alarms(diagnosed(rows[:seen]))]
    assert told == list(range(told[0], told[-1] + 1)), "it neither flickers nor comes back"
    assert told[-1] < 95


def test_an_offset_from_the_first_logged_row_on_is_another_reference() -> None:
    offset = simulate(learning(60) / 20, chosen_nats=-9.0)
    found = alert(diagnosed(offset, first_step=2, every=2), "reference_mismatch")
    assert (found.severity, found.step) == ("warning", 2)
    runaway = simulate(learning(60) / 20, chosen_nats=-6.0 * np.arange(1, 61))
    assert "reference_mismatch" not in alarms(diagnosed(runaway, first_step=2, every=2))
    assert "reference_mismatch" not in alarms(diagnosed(offset, first_step=500, every=2))


def test_accuracies_against_another_reference_are_no_swapped_labels() -> None:
    margins = -10.0 - learning(120)
    assert "labels_swapped" not in alarms(diagnosed(simulate(margins, chosen_nats=-20.0)))
