"""lr_zero: the learning rate is 0 while the run goes on.

An update is learning rate x direction, so at 0 nothing changes. One row of 0 is normal: a
warm-up starts there (the Trainer logs 0 at step 1), and a linear or cosine schedule ends there.
More rows are a schedule that ended before the run did (its total steps were counted wrongly), a
warm-up that never starts, or fp16 whose every step overflows: DeepSpeed then never steps the
schedule and the Trainer logs 0.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import ALL
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import Latch, Trailing, aligned
from dpo_telemetry.series.columns import Rows

CODE = "lr_zero"


class LrZero(Rule):
    """Counts rows in a row whose learning rate is 0."""

    KINDS = ALL
    NEEDS = ("learning_rate",)
    SEVERITIES = ("warning", "critical")

    def __init__(self, context: Context) -> None:
        self._rows = context.thresholds.lr_zero_rows
        self._zero = Trailing(self._rows)
        self._latch = Latch()
        self._highest = 0.0

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (rate,) = aligned(rows, *self.NEEDS)
        if len(rate) == 0:
            return
        zero = rate == 0
        share = self._zero.feed(zero.astype(np.float64))
        before = np.maximum.accumulate(np.concatenate([[self._highest], rate]))[1:]
        self._highest = float(before[-1])
        self._latch.feed(steps, share >= 1, ~zero, {"highest_learning_rate": before})

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._latch
        if not seen.active:
            return []
        rows = seen.count + self._rows - 1
        highest = seen.evidence["highest_learning_rate"]
        told = f"after a peak of {highest:.3g}" if highest > 0 else "and was never above"
        return [
            HealthAlert(
                code=CODE,
                severity="warning" if highest > 0 else "critical",
                metric="learning_rate",
                step=seen.first_step,
                last_step=seen.last_step,
                count=rows,
                message=f"the learning rate has been 0 for {rows} rows, {told}: nothing is learned any more",
                advice="Compare the schedule's total steps and warm-up with the steps that the run"
                " makes; with"
                " fp16 look for skipped steps (loss scale), and use bf16.",
                evidence={**seen.evidence, "rows": rows},
                references=["transformers#27749", "transformers#14531"],
            )
        ]
