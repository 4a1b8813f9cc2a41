"""labels_swapped: the policy learns to prefer what was rejected.

A pair is right when its margin, reward of chosen minus reward of rejected, is above 0; at
random half of them are. The loss pushes every margin up, so an accuracy that stays below one
half beside margins that sink is no lack of learning: whoever computes the loss and whoever
computes the metrics disagree on which completion is the chosen one. Labels swapped in all of
the training data cannot be seen in training rows, where they are learned like any others; an
evaluation whose labels are right shows them, by an accuracy that sinks while that of training
rises. Rows whose margin is exactly 0 are wrong pairs to `>` and say nothing: they are left out.
Where the first margin is far from 0 the reference is another model, and accuracies mean nothing.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import PAIRED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import Latch, Mean, Pace, Spread, Trailing, aligned
from dpo_telemetry.series.columns import Rows

CODE = "labels_swapped"

STANDARD_ERRORS = 3.5
"""The accuracy has to lie so many standard errors below one half; single margins have long tails."""
FIRST_STEPS = 5
"""A first row up to this step is one of a run's start."""
FOREIGN_MARGIN = 0.5
"""A first margin of this size is another reference's, against which accuracies mean nothing."""
EVALUATIONS = 2
"""Evaluations in a row that have to agree."""
OPPOSED = 0.1
"""Share of the training margin by which the evaluation's lies below 0: less is a lack of generalisation."""


class LabelsSwapped(Rule):
    """Compares accuracies of training and evaluation with one half."""

    KINDS = PAIRED
    NEEDS = ("rewards/accuracies", "rewards/margins")
    SEVERITIES = ("critical",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._low, self._sunk = limits.swapped_accuracy, limits.swapped_margin
        rows = limits.window_rows
        self._pace, self._accuracy, self._margin = Pace(rows), Spread(rows), Mean(rows)
        self._comparable: bool | None = None
        self._train = Latch()
        self._eval = Latch()
        self._low_evals = Trailing(EVALUATIONS)
        self._train_accuracy = self._train_margin = float("nan")

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (accuracy, margin) = aligned(rows, *self.NEEDS)
        if len(steps) and self._comparable is None:
            self._comparable = bool(steps[0] > FIRST_STEPS or abs(margin[0]) < FOREIGN_MARGIN)
        moved = margin != 0
        steps = steps[moved]
        widths = self._pace.feed(steps)
        mean, error = self._accuracy.feed(accuracy[moved], widths)
        margins = self._margin.feed(margin[moved], widths)
        # An accuracy of one half scatters more than the low one that was seen: p (1 - p) is largest there.
        spread = np.sqrt(np.maximum(mean * (1 - mean), np.finfo(np.float64).tiny))
        on = (mean <= self._low) & (mean + STANDARD_ERRORS * error * 0.5 / spread < 0.5)
        on &= margins <= -self._sunk
        self._train.feed(steps, on, mean >= 0.5, {"accuracy": mean, "margin": margins})
        if len(mean) and np.isfinite(mean[-1]):
            self._train_accuracy, self._train_margin = float(mean[-1]), float(margins[-1])
        steps, (accuracy, margin) = aligned(rows, *(f"eval_{name}" for name in self.NEEDS))
        low = (accuracy <= self._low) & (margin < 0)
        share = self._low_evals.feed(low.astype(np.float64))
        self._eval.feed(
            steps, share >= 1, accuracy >= 0.5, {"eval_accuracy": accuracy, "eval_margin": margin}
        )

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        if self._train.active and self._comparable:
            seen, metric = self._train, "rewards/accuracies"
            text = (
                f"only {seen.evidence['accuracy']:.0%} of the training pairs are right and the margin"
                " sinks to"
                f" {seen.evidence['margin']:.3g}"
            )
        elif self._opposed():
            seen, metric = self._eval, "eval_rewards/accuracies"
            text = (
                f"{self._train_accuracy:.0%} of the training pairs are right, but only"
                f" {seen.evidence['eval_accuracy']:.0%} of the evaluation's, and its margin sinks to"
                f" {seen.evidence['eval_margin']:.3g}"
            )
        else:
            return []
        return [
            HealthAlert(
                code=CODE,
                severity="critical",
                metric=metric,
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"{text}: chosen and rejected are swapped somewhere",
                advice="Read ten pairs as the trainer gets them, chosen beside rejected, and look for a"
                " data set"
                " that ranks the other way round or a collator that mixes the two halves up.",
                evidence=seen.evidence,
                references=["arXiv 2305.18290"],
            )
        ]

    def _opposed(self) -> bool:
        """Whether evaluation goes the other way than training, which works."""
        if not self._eval.active or not self._train_accuracy > 1 - self._low:
            return False
        return self._eval.evidence["eval_margin"] <= -OPPOSED * self._train_margin
