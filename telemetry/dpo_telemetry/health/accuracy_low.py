"""accuracy_low: the policy moves, and still tells pairs apart no better than a coin.

`rewards/accuracies` is the share of pairs whose margin is above 0: one half at random, near 1
once training pairs are learned. A window that stays near one half while rewards have left 0 is
training on labels that contradict each other, on pairs too alike to tell apart, or at a learning
rate that throws the policy about. Where rewards are still near 0 nothing has been tried yet, and
`loss_not_falling` is the one to speak. Rows whose margin is exactly 0 are left out: `>` calls
their pairs wrong, and they say nothing. Where rewards are not 0 at the first step the reference is
another model (`reference_mismatch`), and whether margins are above 0 means nothing.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import REFERENCED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import Latch, Mean, Pace, Settled, Spread, aligned, beside
from dpo_telemetry.series.columns import Rows

CODE = "accuracy_low"

NEEDED = ("rewards/accuracies", "rewards/margins", "rewards/chosen")

FIRST_STEP = 1
"""The row of this step is computed before the first update."""
ERRORS = 2
"""Standard errors above the mean that still have to be low: every row looks again."""
LONG_WINDOWS = 12
"""The long window holds so many times the rows of the short one: over 480 single pairs two standard errors
of a coin toss are less than what lies between one half and the threshold."""
RECOVERED = 0.05
"""Accuracy above the threshold at which the alert is taken back, if its standard error leaves it above as well."""


class AccuracyLow(Rule):
    """Mean accuracy of a window behind the warm-up."""

    KINDS = REFERENCED
    NEEDS = NEEDED
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._low, self._moved = limits.low_accuracy, limits.moved_reward
        self._settled = Settled()
        self._windows = [
            (Pace(rows), Spread(rows), Mean(rows), Mean(rows), Latch())
            for rows in (limits.accuracy_rows, LONG_WINDOWS * limits.accuracy_rows)
        ]
        self._foreign_reward = limits.reference_warning_reward
        self._comparable = True

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (accuracy, margin, chosen) = aligned(rows, *NEEDED)
        if len(steps) == 0:
            return
        at_start = steps <= FIRST_STEP
        self._comparable &= bool(
            (np.abs(chosen) + np.abs(margin))[at_start].max(initial=0) < self._foreign_reward
        )
        settled = self._settled.feed(beside(rows, "learning_rate", *NEEDED))
        judged = margin != 0
        if not judged.any():
            return
        steps, settled, margin = steps[judged], settled[judged], margin[judged]
        reward = np.abs(chosen[judged]) + np.abs(margin)
        for pace, spread, rewards, margins, latch in self._windows:
            widths = pace.feed(steps)
            mean, error = spread.feed(accuracy[judged], widths)
            on = (settled >= widths) & (rewards.feed(reward, widths) >= self._moved)
            on &= mean + ERRORS * error <= self._low
            off = mean - error > self._low + RECOVERED
            evidence = {"accuracy": mean, "standard_error": error, "margin": margins.feed(margin, widths)}
            latch.feed(steps, on, off, evidence)

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        raised = [latch for *_, latch in self._windows if latch.active]
        if not raised or not self._comparable:
            return []
        seen = raised[0]
        accuracy = seen.evidence["accuracy"]
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="rewards/accuracies",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"rewards have moved, but only {accuracy:.0%} of the pairs of the last rows are"
                " right, where chance gives 50 %",
                advice="Read pairs: are labels noisy or contradictory, are chosen and rejected nearly"
                " the same?"
                " Then lower the learning rate; label_smoothing or the robust loss bear some wrong labels.",
                evidence=seen.evidence,
                references=["arXiv 2305.18290", "arXiv 2403.00409"],
            )
        ]
