"""What a log is, by its columns, and what its loss starts at."""

from __future__ import annotations

import numpy as np
import pytest

from dpo_telemetry.health.diagnosis import RULES
from dpo_telemetry.health.kind import ALL, LN2, Kind, recognise, start_loss

from .simulated import Row, diagnosed, learning, simulate

DPO = {"loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}


@pytest.mark.parametrize(
    ("names", "loss_kind", "kind"),
    [
        (DPO, None, "dpo"),
        (DPO | {"kl"}, None, "dpo"),
        ({"eval_rewards/chosen", "eval_loss"}, None, "dpo"),
        (DPO, "kto", "kto"),
        ({"loss", "kl", "rewards/chosen", "logps/chosen"}, None, "kto"),
        (DPO | {"log_odds_chosen"}, None, "reference_free"),
        (DPO | {"odds_ratio_loss"}, None, "reference_free"),
        (DPO, "simpo", "reference_free"),
        (DPO | {"nll_loss"}, None, "dpo"),
        ({"loss", "reward", "reward_std", "rewards/format/mean"}, None, "rl"),
        ({"objective/kl", "objective/scores", "loss/policy_avg"}, None, "rl"),
        ({"loss", "accuracy", "margin", "mean_reward"}, None, "reward"),
        ({"eval_loss", "eval_accuracy", "eval_margin"}, None, "reward"),
        ({"loss", "mean_token_accuracy", "entropy"}, None, "other"),
        ({"loss"}, None, "other"),
        (set(), None, "other"),
    ],
)  # fmt: skip
def test_columns_tell_the_kind(names: set[str], loss_kind: str | None, kind: Kind) -> None:
    assert recognise(names, loss_kind) == kind


def test_rewards_in_proportion_to_log_probs_know_no_reference() -> None:
    rows: list[Row] = [
        {
            "loss": 2.0, "rewards/chosen": 0.1 * chosen, "rewards/rejected": 0.1 * rejected,
            "logps/chosen": chosen, "logps/rejected": rejected,
        }
        for chosen, rejected in ((-1.2, -1.5), (-1.1, -1.4), (-1.3, -1.2))
    ]  # fmt: skip
    assert diagnosed(rows).kind == "reference_free"
    printed = [{name: float(f"{value:.4g}") for name, value in row.items()} for row in rows]
    assert diagnosed(printed).kind == "reference_free"
    other = [row | {"rewards/rejected": 0.15 * row["logps/rejected"]} for row in rows]
    assert diagnosed(other).kind == "dpo"
    assert diagnosed(simulate(learning(20))).kind == "dpo"


@pytest.mark.parametrize(
    ("loss_kind", "beta", "expected"),
    [
        ("sigmoid", 0.1, LN2), ("robust", 0.1, LN2), ("hinge", 0.1, 1.0), ("ipo", 0.1, 25.0), ("ipo", 0.5, 1.0),
        ("sppo_hard", 0.1, 50.0), ("bco_pair", 0.1, 2 * LN2), ("kto", 0.1, 0.5), ("orpo", 0.1, None),
    ],
)  # fmt: skip
def test_each_loss_starts_at_that_of_a_margin_of_0(
    loss_kind: str, beta: float, expected: float | None
) -> None:
    assert start_loss(loss_kind, beta) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "loss_kind", ["sigmoid", "robust", "hinge", "ipo", "sppo_hard", "bco_pair", "nca_pair", "apo_zero"]
)
def test_the_starts_are_those_of_trls_formulas(loss_kind: str) -> None:
    zero, beta = np.zeros(1), 0.2
    sigmoid = 1 / (1 + np.exp(-zero))
    log_sigmoid = np.log(sigmoid)
    by_trl = {
        "sigmoid": -log_sigmoid,
        "robust": (-(1 - 0.1) * log_sigmoid + 0.1 * log_sigmoid) / (1 - 2 * 0.1),
        "hinge": np.maximum(0, 1 - beta * zero),
        "ipo": (zero - 1 / (2 * beta)) ** 2,
        "sppo_hard": (zero - 0.5 / beta) ** 2 + (zero + 0.5 / beta) ** 2,
        "bco_pair": -log_sigmoid - log_sigmoid,
        "nca_pair": -log_sigmoid - 0.5 * log_sigmoid - 0.5 * log_sigmoid,
        "apo_zero": (1 - sigmoid) + sigmoid,
    }
    assert start_loss(loss_kind, beta) == pytest.approx(by_trl[loss_kind][0])


def test_every_rule_says_which_kinds_and_severities_it_has() -> None:
    for code, rule in RULES.items():
        assert rule.KINDS, code
        assert rule.KINDS <= ALL, code
        assert rule.SEVERITIES, code
        assert len(set(rule.SEVERITIES)) == len(rule.SEVERITIES), code
