"""Logs on which a rule is easily wrong: chance among few pairs, sums in half precision, scalers, label noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from dpo_telemetry.health.kind import LN2
from dpo_telemetry.series.columns import Floats

from .simulated import Row, alarms, alert, diagnosed, learning, live, simulate


def repeated(pattern: Sequence[float], count: int) -> Floats:
    """The pattern over and over, shape (count,)."""
    return np.resize(np.array(pattern, np.float64), count)


def mixed(right: int, of: int) -> Floats:
    """Accuracies of single pairs, `right` of them right and evenly spread, shape (of,)."""
    at = np.arange(of)
    spread: Floats = np.diff((np.append(at, of) * right) // of).astype(np.float64)
    return spread


def with_column(rows: list[Row], name: str, start: int, values: Sequence[float] | Floats) -> list[Row]:
    """The rows with one metric changed from row `start` on."""
    for at, value in enumerate(values):
        rows[start + at] = rows[start + at] | {name: float(value)}
    return rows


def ever_raised(rows: list[Row], *, every: int = 1) -> set[str]:
    """Codes that were an alarm after any row."""
    return {code for diagnosis in live(rows, every=every) for code in alarms(diagnosis)}


def times_raised(rows: list[Row], code: str) -> int:
    """How often an alarm came, the times it came back among them."""
    seen = [code in alarms(diagnosis) for diagnosis in live(rows)]
    return sum(now and not before for before, now in zip([False, *seen], seen, strict=False))


@pytest.mark.parametrize("bad", [1, 3, 5])
def test_a_scaler_that_finds_its_scale_is_a_note_once_a_gradient_is_good(bad: int) -> None:
    rows = with_column(simulate(learning(60)), "grad_norm", 0, [math.inf] * bad)
    severities = [alert(diagnosis, "nonfinite").severity for diagnosis in live(rows)]
    assert severities == ["warning"] * bad + ["info"] * (60 - bad)


def test_a_longer_streak_of_first_gradients_than_a_scalers_is_critical_until_one_is_good() -> None:
    rows = with_column(simulate(learning(40)), "grad_norm", 0, [math.inf] * 6)
    severities = [alert(diagnosis, "nonfinite").severity for diagnosis in live(rows)]
    assert severities == ["warning"] * 5 + ["critical"] + ["info"] * 34
    lost = with_column(simulate(learning(40)), "grad_norm", 0, [math.inf] * 40)
    severities = [alert(diagnosis, "nonfinite").severity for diagnosis in live(lost)]
    assert severities == ["warning"] * 5 + ["critical"] * 35


@pytest.mark.parametrize("loss", [0.0, math.nan])
def test_a_first_gradient_beside_a_loss_of_0_or_nan_is_no_scalers(loss: float) -> None:
    rows = with_column(simulate(learning(40)), "grad_norm", 0, [math.nan])
    rows = with_column(rows, "loss", 1, [loss])
    assert [found.severity for found in diagnosed(rows).alerts() if found.metric == "grad_norm"] == [
        "critical"
    ]


def test_margins_where_label_smoothing_holds_them_are_not_stalled() -> None:
    smoothing, steps = 0.05, 300
    margins = math.log((1 - smoothing) / smoothing) * (1 - np.exp(-np.maximum(np.arange(steps) - 3, 0) / 15))
    loss = (1 - smoothing) * np.logaddexp(0, -margins) + smoothing * np.logaddexp(0, margins)
    rows = simulate(10 * margins, scatter_nats=0.5, changed={"loss": loss})
    assert "stalled" not in alarms(diagnosed(rows))
    stands = simulate(2 * margins, scatter_nats=0.5)
    assert "stalled" in alarms(diagnosed(stands)), "without smoothing larger margins would lower the loss"


def test_log_probs_of_single_pairs_that_differ_as_lengths_do_are_no_jump() -> None:
    logps = np.concatenate([repeated([-30, -90], 60), repeated([-20, -240], 8), repeated([-30, -90], 40)])
    loss = np.concatenate([repeated([0.3, 0.8], 60), repeated([0.5, 1.1], 8), repeated([0.3, 0.8], 40)])
    loss[:8] = LN2
    rows = simulate(learning(108), pairs=1, changed={"loss": loss, "logps/chosen": logps})
    assert "loss_spike" not in ever_raised(rows)
    thrown = with_column(rows, "logps/chosen", 60, repeated([-520, -740], 48))
    assert "loss_spike" in ever_raised(thrown)


def test_spikes_that_are_averaged_in_pairs_are_spikes() -> None:
    rows = simulate(learning(400))
    for at in (241, 243, 244):
        rows[at]["loss"] += 4.0
    pairs = [
        {name: (one[name] + other[name]) / 2 for name in one}
        for one, other in zip(rows[::2], rows[1::2], strict=True)
    ]
    assert "loss_spike" in alarms(diagnosed(pairs, first_step=2, every=2))
    lone = simulate(learning(200))
    lone[120]["loss"] += 4.0
    assert "loss_spike" not in alarms(diagnosed(lone, first_step=2, every=2))


@pytest.mark.parametrize("accumulation", [8, 64])
def test_a_loss_that_is_summed_in_bf16_over_accumulation_steps_is_no_corrupted_base(
    accumulation: int,
) -> None:
    summed = 0.0
    for _ in range(accumulation):
        summed = in_bf16(summed + LN2)
    rows = [row | {"loss": in_bf16(summed * row["loss"] / LN2)} for row in simulate(learning(60))]
    assert abs(rows[0]["loss"] / LN2 - round(rows[0]["loss"] / LN2)) > 0.01
    assert alarms(diagnosed(rows)) == []
    broken = [row | {"loss": row["loss"] + 0.3001} for row in rows]
    assert "base_corrupted" in alarms(diagnosed(broken))


def in_bf16(value: float) -> float:
    """The nearest number of eight bits."""
    grid = 2.0 ** (math.floor(math.log2(value)) - 7)
    return grid * round(value / grid)


def test_five_of_25_single_pairs_right_is_chance_and_no_swapped_labels() -> None:
    def single(right: int) -> list[Row]:
        accuracy = np.concatenate([mixed(3, 5).tolist() * 10, mixed(right, 25), mixed(3, 5).tolist() * 10])
        margins = np.where(accuracy > 0, 0.4, -0.4)
        return simulate(learning(125), changed={"rewards/accuracies": accuracy, "rewards/margins": margins})

    assert "labels_swapped" not in ever_raised(single(5))
    assert "labels_swapped" in ever_raised(single(2))


def test_eighteen_of_40_single_pairs_right_is_chance_where_most_are_right_besides() -> None:
    accuracy = np.concatenate([mixed(13, 20).tolist() * 5, mixed(18, 40), mixed(13, 20).tolist() * 3])
    rows = simulate(learning(200), changed={"rewards/accuracies": accuracy})
    assert "accuracy_low" not in ever_raised(rows)


def test_a_coin_toss_of_single_pairs_is_seen_over_many_rows() -> None:
    rows = simulate(learning(500), changed={"rewards/accuracies": repeated([1, 0, 0, 1], 500)})
    assert "accuracy_low" in alarms(diagnosed(rows))
    scattered = np.concatenate([mixed(15, 40), mixed(25, 40)] * 6)
    assert (
        times_raised(simulate(learning(480), changed={"rewards/accuracies": scattered}), "accuracy_low") == 1
    )


def test_losses_of_single_pairs_that_are_high_for_a_while_are_chance() -> None:
    loss = np.concatenate(
        [[LN2], repeated([0.05, 1.27], 79), repeated([0.5, 1.7], 26), repeated([0.05, 1.1], 60)]
    )
    assert "loss_not_falling" not in ever_raised(simulate(learning(166), pairs=1, changed={"loss": loss}))
    flat = simulate(learning(166) / 100, changed={"loss": LN2 + repeated([-0.001, 0.001], 166)})
    assert "loss_not_falling" in alarms(diagnosed(flat))


def test_a_margin_that_may_have_grown_within_its_error_is_on_its_way() -> None:
    means = np.repeat([0.001, 0.01, 0.02, 0.028, 0.05, 0.09, 0.15], 25)
    rows = simulate(learning(175), changed={
        "rewards/margins": means + repeated([-0.06, 0.06], 175), "rewards/accuracies": 0.75,
    })  # fmt: skip
    assert "margin_small" not in ever_raised(rows)
    stands = simulate(learning(175), changed={
        "rewards/margins": np.minimum(means, 0.02) + repeated([-0.002, 0.002], 175), "rewards/accuracies": 0.75,
    })  # fmt: skip
    assert "margin_small" in ever_raised(stands)


def test_gradients_that_are_large_again_after_a_dozen_rows_are_one_alarm() -> None:
    burst = [900.0, 900.0, 900.0, *[4.0] * 12]
    rows = simulate(learning(120), changed={"grad_norm": np.append(np.full(45, 4.0), repeated(burst, 75))})
    assert times_raised(rows, "grad_exploding") == 1


def test_log_probs_within_those_of_the_first_single_pairs_have_not_collapsed() -> None:
    first = [-40, -150, -60, -55, -70, -140, -50, -65, -45, -60]
    logps = np.concatenate([first, np.linspace(-65, -135, 60), np.full(50, -135.0)])
    fallen = np.linspace(0, -30, 120)
    rows = simulate(learning(120), chosen_nats=fallen, changed={"logps/chosen": logps})
    assert "likelihood_displacement" not in ever_raised(rows)
    collapsed = with_column(rows, "logps/chosen", 70, np.full(50, -300.0))
    assert "likelihood_displacement" in alarms(diagnosed(collapsed))


def test_log_probs_that_training_has_parted_say_nothing_of_lengths() -> None:
    rejected = np.append(np.linspace(-210, -700, 10), np.full(110, -750.0))
    changed: dict[str, npt.ArrayLike] = {
        "logps/chosen": -205.0,
        "logps/rejected": rejected,
        "rewards/accuracies": 0.95,
    }
    rows = simulate(learning(120), changed=changed)
    assert "length_bias" not in alarms(diagnosed(rows, first_step=20, every=20))
    longer = with_column(rows, "logps/rejected", 0, np.full(10, -520.0))
    assert "length_bias" in alarms(diagnosed(longer, first_step=20, every=20))


@pytest.mark.parametrize("seed", range(3))
def test_rounding_that_hides_the_margins_is_a_warning_from_first_to_last(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rounded = 4.0 * rng.integers(130, 180, (2, 60))
    noise = 0.4 * np.round(rng.uniform(-1.4, 1.4, 60))
    noise[0] = 0.0
    changed = {"logps/chosen": -rounded[0], "logps/rejected": -rounded[1], "rewards/margins": noise}
    severities = {
        alert(seen, "bf16_rounding").severity for seen in live(simulate(learning(60), changed=changed))
    }
    assert severities == {"warning"}


def test_a_margin_that_is_seen_above_the_grid_stays_seen() -> None:
    rounded = repeated([-532.0, -540.0, -556.0], 60)
    margins = np.concatenate([[0.0], np.full(29, 0.9), np.zeros(30)])
    changed = {"logps/chosen": rounded, "logps/rejected": rounded - 8.0, "rewards/margins": margins}
    severities = [
        alert(seen, "bf16_rounding").severity for seen in live(simulate(learning(60), changed=changed))
    ]
    assert severities == sorted(severities, reverse=True)
    assert (severities[0], severities[9], severities[-1]) == ("warning", "info", "info")
