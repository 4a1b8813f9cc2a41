"""reference_mismatch: before the first update, the policy is not the reference.

reward = beta x (log-prob of the policy - log-prob of the reference), so before the first update
every reward is 0. The row of step 1 is computed before its update, and so is an evaluation at
step 0. Differences of some 1e-4 are a dtype's; larger ones another adapter, another base, or
dropout in one of the two (trl#1236).

A log whose first row sums up some updates, or whose steps are not known, can still show it: a
wrong reference is an offset that is there from the first row on, while a policy that runs away
grows from row to row. Rows from the middle of a run, by step or epoch, are no first rows.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import REFERENCED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import First, aligned, beside, figures
from dpo_telemetry.series.columns import Rows

CODE = "reference_mismatch"

TRAIN = ("rewards/chosen", "rewards/rejected")
EVAL = ("eval_rewards/chosen", "eval_rewards/rejected")
OFFSET_ROWS = 3
"""First rows that have to show the offset where none is known to precede the first update."""
OFFSET_GROWTH = 1.5
"""An offset grows by less than this factor over those rows."""
LAST_FIRST_STEP = 25
"""A log that begins at a later step begins in the middle."""
LAST_FIRST_EPOCH = 0.1


class ReferenceMismatch(Rule):
    """Looks at the rows that were computed before the first update."""

    KINDS = REFERENCED
    NEEDS = TRAIN
    SEVERITIES = ("warning", "critical")

    def __init__(self, context: Context) -> None:
        self._dropout = context.dropout_on_trained_adapter
        self._steps_known = context.steps_known
        self._limits = context.thresholds
        self._found: tuple[float, str, int] | None = None
        self._offsets, self._steps, self._epochs = First(OFFSET_ROWS), First(1), First(1)

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        for names, first_step in ((TRAIN, 1), (EVAL, 0)):
            if names is TRAIN and self._dropout:
                continue
            for name in names:
                steps, values = rows.logged(name)
                at_start = values[(steps == first_step) & np.isfinite(values)]
                if len(at_start) and (self._found is None or abs(at_start[0]) > abs(self._found[0])):
                    self._found = (float(at_start[0]), name, first_step)
        if not self._offsets.full and not self._dropout:
            steps, rewards = aligned(rows, *TRAIN)
            if len(steps):
                self._steps.feed(steps.astype(np.float64))
                self._epochs.feed(beside(rows, "epoch", *TRAIN))
                self._offsets.feed(np.where(np.abs(rewards[0]) > np.abs(rewards[1]), *rewards))

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        if self._steps_known and self._found is not None:
            reward, name, step = self._found
            if abs(reward) >= self._limits.reference_warning_reward:
                return [self._alert(reward, name, step, "before the first update")]
        reward = self._offset()
        if abs(reward) < self._limits.reference_offset_reward:
            return []
        return [self._alert(reward, TRAIN[0], int(self._steps.values[0]), "in the first row")]

    def _offset(self) -> float:
        """The reward that all first rows have in common; 0 where there is none."""
        if not self._offsets.full:
            return 0.0
        begins = not self._steps_known or self._steps.values[0] <= LAST_FIRST_STEP
        if not begins or self._epochs.values[0] > LAST_FIRST_EPOCH:
            return 0.0
        first, *others = (abs(value) for value in self._offsets.values)
        return self._offsets.values[0] if max(others) <= OFFSET_GROWTH * first else 0.0

    def _alert(self, reward: float, name: str, step: int, where: str) -> HealthAlert:
        critical = where != "in the first row" and abs(reward) >= self._limits.reference_critical_reward
        return HealthAlert(
            code=CODE,
            severity="critical" if critical else "warning",
            metric=name,
            step=step,
            last_step=step,
            message=f"{name} is {reward:.3g} {where}, where it has to be 0: the reference is"
            " not the policy that training started from",
            advice="Give policy and reference the same adapter, base and dtype, and switch dropout off for"
            " the reference.",
            evidence=figures({"reward": reward}),
            references=["trl#1236", "trl#6470"],
        )
