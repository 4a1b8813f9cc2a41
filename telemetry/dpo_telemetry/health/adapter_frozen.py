"""adapter_frozen: the policy stays equal to the reference although it is being updated.

After the first update with a learning rate above 0 the rewards leave 0. Rewards that stay
exactly 0 beside real log-probs mean that no adapter weight changes (loaded without
`is_trainable`, trl#1311) or that policy and reference are one object. Rewards that a bf16 grid
rounds to 0 are `bf16_rounding`'s.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import REFERENCED
from dpo_telemetry.health.rule import Context, Rule, Sighting
from dpo_telemetry.series.columns import Mask, Rows

CODE = "adapter_frozen"

FIRST_STEP = 2
"""The row of step 1 is computed before the first update."""


class AdapterFrozen(Rule):
    """Counts rows in which both rewards are exactly 0 behind the first update."""

    KINDS = REFERENCED
    NEEDS = ("rewards/chosen", "rewards/rejected")
    SEVERITIES = ("critical",)

    def __init__(self, context: Context) -> None:
        self._min_rows = context.thresholds.frozen_rows
        self._still = Sighting()
        self._moved = False

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        if self._moved or not set(self.NEEDS) <= rows.columns.keys():
            return
        chosen, rejected = rows.columns["rewards/chosen"], rows.columns["rewards/rejected"]
        judged = np.isfinite(chosen) & np.isfinite(rejected)
        judged &= (rows.steps >= FIRST_STEP) & _learning(rows) & _unrounded(rows)
        still = judged & (chosen == 0) & (rejected == 0)
        self._moved = bool((judged & ~still).any())
        self._still.add(rows.steps[still])

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._still
        if self._moved or seen.count < self._min_rows:
            return []
        return [
            HealthAlert(
                code=CODE,
                severity="critical",
                metric="rewards/chosen",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"rewards are exactly 0 in {seen.count} rows after the first update: the adapter does"
                " not change",
                advice="Load the adapter with is_trainable=True, see that the optimizer holds its parameters,"
                " and that the reference is a copy and not the policy itself.",
                evidence={"reward": 0.0, "rows": seen.count},
                references=["trl#1311", "trl#2553"],
            )
        ]


def _learning(rows: Rows) -> Mask:
    rate = rows.columns.get("learning_rate")
    return np.ones(len(rows), np.bool_) if rate is None else ~(rows.present["learning_rate"] & (rate == 0))


def _unrounded(rows: Rows) -> Mask:
    """Rows whose log-probs are there, not empty, and not on a grid that would round rewards to 0."""
    mask = np.ones(len(rows), np.bool_)
    for name in ("logps/chosen", "logps/rejected"):
        if name in rows.columns:
            values, grid = rows.columns[name], np.ones(len(rows), np.bool_)
            finite = np.isfinite(values)
            grid[finite] = (values[finite] != 0) & (np.remainder(values[finite], 0.125) != 0)
            mask &= grid | ~rows.present[name]
    return mask
