"""reference_mismatch: before the first update, the policy is not the reference.

reward = beta x (log-prob of the policy - log-prob of the reference), so before the first update
every reward is 0. The row of step 1 is computed before its update, and so is an evaluation at
step 0. Differences of some 1e-4 are a dtype's; larger ones another adapter, another base, or
dropout in one of the two (trl#1236).
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.rule import Context
from dpo_telemetry.series.columns import Rows

CODE = "reference_mismatch"

TRAIN = ("rewards/chosen", "rewards/rejected")
EVAL = ("eval_rewards/chosen", "eval_rewards/rejected")
WARNING_REWARD = 0.01
"""Below it a dtype explains the difference."""
CRITICAL_REWARD = 0.1
"""From it on the run is pulled away from something it never was."""
FIRST_ROW_REWARD = 1.0
"""Where steps are not known the first row may sum up some updates, which reach less than this."""


class ReferenceMismatch:
    """Looks at the rows that were computed before the first update."""

    def __init__(self, context: Context) -> None:
        self._dropout = context.dropout_on_trained_adapter
        self._steps_known = context.steps_known
        self._found: tuple[float, str, int] | None = None

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

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        threshold = WARNING_REWARD if self._steps_known else FIRST_ROW_REWARD
        if self._found is None or abs(self._found[0]) < threshold:
            return []
        reward, name, step = self._found
        where = "before the first update" if self._steps_known else "in the first row"
        return [
            HealthAlert(
                code=CODE,
                severity="critical" if self._steps_known and abs(reward) >= CRITICAL_REWARD else "warning",
                metric=name,
                step=step,
                last_step=step,
                message=f"{name} is {reward:.3g} {where}, where it has to be 0: the reference is"
                " not the policy that training started from",
                advice="Give policy and reference the same adapter, base and dtype, and switch dropout off for"
                " the reference.",
            )
        ]
