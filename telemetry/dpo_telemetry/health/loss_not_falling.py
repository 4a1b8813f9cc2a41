"""loss_not_falling: many steps, and the loss is still that of a coin toss.

The sigmoid loss of a margin of 0 is ln 2, and that of a small margin m is ln 2 - m / 2. A run
that learns pulls its mean below; the noise of single batches hides it, so the rule asks for a
window behind the warm-up whose mean, with two standard errors on top of its noise, is still not
below ln 2. bf16's grid near 0.69 is 1 / 256, and a rounded ln 2 (0.6914) counts as ln 2: half a
step of tolerance. While the learning rate still rises, nothing is expected of a run.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import DPO, LN2, start_loss
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import First, Latch, Pace, Settled, Spread, aligned, beside
from dpo_telemetry.series.columns import Rows

CODE = "loss_not_falling"

LONG_WINDOWS = 8
"""The long window holds so many times the rows of the short one, for noisy losses."""
ERRORS, NOISY_ERRORS = 2, 4
"""Standard errors that a mean has to stand above; more where they are wider than what is to be told apart:
every row looks again, and among many looks at single pairs some are far off.
"""
FALLEN = 0.9
"""A run whose mean loss was once below this share of ln 2 had learned something; others tell what came."""
START_TOLERANCE = 0.05
"""A log whose first loss is further from ln 2 than this is not a fresh sigmoid DPO run."""


class LossNotFalling(Rule):
    """Compares the mean loss of two windows with ln 2."""

    KINDS = DPO
    NEEDS = ("loss",)
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        kind = context.loss_kind
        self._applies = kind is None or start_loss(kind, context.assumed_beta) == LN2
        self._tolerance, self._min_steps = limits.ln2_tolerance, limits.min_steps
        long = LONG_WINDOWS * limits.window_rows
        self._windows = [
            (Pace(limits.window_rows), Spread(limits.window_rows), Latch()),
            (Pace(long), Spread(long), Latch()),
        ]
        self._first_step: int | None = None
        self._least = [float("inf") for _ in self._windows]
        self._first = First(1)
        self._settled = Settled()
        self._rows = 0

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (loss,) = aligned(rows, "loss")
        if len(steps) == 0:
            return
        self._first.feed(loss)
        if self._first_step is None:
            self._first_step = int(steps[0])
        self._rows += len(loss)
        enough = steps - self._first_step + 1 >= self._min_steps
        settled = self._settled.feed(beside(rows, "learning_rate", "loss"))
        for at, (pace, spread, latch) in enumerate(self._windows):
            widths = pace.feed(steps)
            mean, error = spread.feed(loss, widths)
            least = np.fmin.accumulate(np.append(self._least[at], mean))[1:]
            self._least[at] = float(least[-1])
            on = enough & (least >= FALLEN * LN2) & (settled >= widths) & (mean >= LN2 - self._tolerance)
            errors = np.where(error <= 2 * self._tolerance, ERRORS, NOISY_ERRORS)
            on &= mean - errors * error >= LN2 - 2 * self._tolerance
            off = mean + error < LN2 - 2 * self._tolerance
            latch.feed(steps, on, off, {"loss": mean, "standard_error": error})

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        raised = [latch for _, _, latch in self._windows if latch.active]
        if not raised or not self._applies or abs(self._first.values[0] - LN2) > START_TOLERANCE:
            return []
        seen = raised[0]
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="loss",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"after {self._rows} rows the loss is {seen.evidence['loss']:.4f} on average, no"
                " better than a"
                f" coin toss (ln 2 = {LN2:.4f})",
                advice="Raise the learning rate, see that completions are not empty and the adapter is"
                " trainable, and look at whether the pairs can be told apart at all.",
                evidence={**seen.evidence, "expected_below": round(LN2, 4)},
                references=["trl#1311", "arXiv 2305.18290"],
            )
        ]
