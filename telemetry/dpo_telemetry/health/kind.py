"""What kind of training a log is of, read off its columns, and where each loss starts.

A trainer gives itself away by the metrics it logs: `rewards/chosen` is preference training,
`objective/kl`, `reward_std` or `clip_ratio/` reinforcement learning, `mean_reward` beside `margin`
a reward model, a bare `loss` anything. ORPO, CPO and SimPO know no reference: their reward is
beta x log-prob, so that reward over log-prob is one and the same number for chosen and rejected.

Where a loss starts follows from a margin of 0 (TRL's dpo_trainer.py, by its names):
sigmoid, robust, aot, sigmoid_norm: -log sigmoid(0) = ln 2 = 0.6931. hinge: relu(1 - 0) = 1.
ipo: (0 - 1 / (2 beta))^2 = 1 / (4 beta^2), over log-ratios per token: 25 at beta 0.1.
sppo_hard: 2 (0.5 / beta)^2 = 1 / (2 beta^2). bco_pair and nca_pair: 2 ln 2. apo_zero and apo_down: 1.
discopop: (ln 2 + 1) / 2. kto: 1 - sigmoid(0) = 0.5. ORPO has a language model's loss on top.
"""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from typing import Literal

import numpy as np

from dpo_telemetry.health.windows import aligned
from dpo_telemetry.series.columns import Rows

Kind = Literal["dpo", "kto", "reference_free", "reward", "rl", "other"]

LN2 = math.log(2)
"""The sigmoid loss of a margin of 0: -log sigmoid(0)."""

DPO: frozenset[Kind] = frozenset({"dpo"})
REFERENCED: frozenset[Kind] = frozenset({"dpo", "kto"})
"""Kinds whose reward is beta x log-ratio to a reference."""
PAIRED: frozenset[Kind] = frozenset({"dpo", "reference_free"})
"""Kinds that compare a chosen with a rejected completion."""
PREFERENCE: frozenset[Kind] = frozenset({"dpo", "kto", "reference_free"})
SUPERVISED: frozenset[Kind] = frozenset({"dpo", "kto", "reference_free", "reward", "other"})
"""Kinds whose loss falls as they learn; that of reinforcement learning need not."""
ALL: frozenset[Kind] = SUPERVISED | {"rl"}

_REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
_RL_NAMES = {"reward_std", "objective/kl", "policy/approxkl_avg", "frac_reward_zero_std", "ppo/mean_scores"}
_RL_PREFIXES = ("ppo/", "objective/", "clip_ratio", "env/")
_REFERENCE_FREE_NAMES = {"log_odds_chosen", "log_odds_ratio", "odds_ratio_loss"}
_REFERENCE_FREE_LOSSES = {"orpo", "simpo", "cpo"}
_RATIO_COLUMNS = ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
RATIO_ROWS = 3
"""Rows whose reward-to-log-prob ratios all have to agree."""
RATIO_TOLERANCE = 2e-3
"""Relative; four printed digits stay below."""

_STARTS = {
    "sigmoid": LN2, "robust": LN2, "aot": LN2, "aot_unpaired": LN2, "sigmoid_norm": LN2,
    "hinge": 1.0, "apo_zero": 1.0, "apo_down": 1.0, "bco_pair": 2 * LN2, "nca_pair": 2 * LN2,
    "discopop": (LN2 + 1) / 2, "kto": 0.5,
}  # fmt: skip


def start_loss(loss_kind: str, beta: float) -> float | None:
    """The loss at a margin of 0; None for a loss that does not start at one number."""
    if loss_kind == "ipo":
        return 1 / (4 * beta**2)
    if loss_kind == "sppo_hard":
        return 1 / (2 * beta**2)
    return _STARTS.get(loss_kind)


def recognise(names: AbstractSet[str], loss_kind: str | None = None) -> Kind:
    """The kind of training that logs metrics of these names; `loss_kind` is what is known besides."""
    plain = {name.removeprefix("eval_") for name in names}
    if loss_kind in _REFERENCE_FREE_LOSSES or plain & _REFERENCE_FREE_NAMES:
        return "reference_free"
    if plain & set(_REWARDS):
        return "kto" if loss_kind == "kto" or ("kl" in plain and _REWARDS[3] not in plain) else "dpo"
    if plain & _RL_NAMES or any(name.startswith(_RL_PREFIXES) for name in plain):
        return "rl"
    if {"accuracy", "margin"} <= plain or {"mean_reward", "margin"} <= plain:
        return "reward"
    return "other"


class LogKind:
    """Recognises a log as its rows come."""

    def __init__(self, loss_kind: str | None) -> None:
        self._loss_kind = loss_kind
        self._names: set[str] = set()
        self._judged = self._proportional = 0

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        self._names.update(rows.columns)
        if self._judged < RATIO_ROWS:
            _, (chosen, rejected, chosen_logps, rejected_logps) = aligned(rows, *_RATIO_COLUMNS)
            judged = np.flatnonzero(
                (chosen != 0) & (rejected != 0) & (chosen_logps != 0) & (rejected_logps != 0)
            )
            for at in judged[: RATIO_ROWS - self._judged].tolist():
                with np.errstate(over="ignore"):
                    ratio, other = chosen[at] / chosen_logps[at], rejected[at] / rejected_logps[at]
                self._judged += 1
                self._proportional += bool(ratio > 0 and abs(ratio - other) <= RATIO_TOLERANCE * ratio)

    @property
    def kind(self) -> Kind:
        """What the rows so far look like."""
        kind = recognise(self._names, self._loss_kind)
        proportional = self._judged > 0 and self._proportional == self._judged
        return "reference_free" if kind == "dpo" and proportional else kind
