"""margin_small: pairs are told apart, but by a margin that beta makes tiny.

margin = beta x (log-ratio of chosen - log-ratio of rejected). The loss -log sigmoid(margin) has
fallen from ln 2 by about margin / 2, and its gradient is still beta / 2 times that of the
log-ratios: a small beta makes both small however far the policy has moved. A high accuracy
beside a margin near 0 is the mark of it: the order is right, the reward's scale is not. (The
worked example that this project started from divides log-ratios by beta; DPO multiplies by it,
arXiv 2305.18290 equation 7, so a smaller beta makes margins smaller, not larger.)
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import DPO
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import Latch, Mean, Pace, Settled, Spread, aligned, beside
from dpo_telemetry.series.columns import Rows

CODE = "margin_small"

NEEDED = ("rewards/accuracies", "rewards/margins")
GROWTH, SMALL_GROWTH = 1.5, 2.0
"""Factor from window to window at which a margin is on its way; below half the threshold it needs more."""
GROWTH_ERRORS = 2
"""Standard errors of the mean within which it may have grown."""
LATE_EPOCH = 0.5
"""Share of the data behind which a margin below half the threshold is small, on its way or not."""
SURELY, NEARLY = 1.3, 0.8
"""Factor beyond the least growth, and share of the threshold, from which small margins grow after all."""
RECOVERED = 1.2
"""Factor above the threshold at which the alert is taken back."""


class MarginSmall(Rule):
    """Compares a window's margin with its accuracy."""

    KINDS = DPO
    NEEDS = NEEDED
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._beta = context.assumed_beta
        self._small, self._accurate = limits.small_margin, limits.small_margin_accuracy
        self._settled = Settled()
        rows = limits.window_rows
        self._pace, self._margin, self._accuracy = Pace(rows), Spread(rows), Mean(rows)
        self._both = Mean(2 * rows)
        self._latch = Latch()

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (accuracy, margin) = aligned(rows, *NEEDED)
        if len(steps) == 0:
            return
        settled = self._settled.feed(beside(rows, "learning_rate", *NEEDED))
        widths = self._pace.feed(steps)
        mean, error = self._margin.feed(margin, widths)
        right = self._accuracy.feed(accuracy, widths)
        before = 2 * self._both.feed(margin, 2 * widths) - mean
        growth = np.where(mean > self._small / 2, GROWTH, SMALL_GROWTH)
        late = beside(rows, "epoch", *NEEDED) >= LATE_EPOCH
        grows = ~(mean + GROWTH_ERRORS * error <= growth * before) & ~(late & (mean <= self._small / 2))
        on = (
            (settled >= np.where(late, widths, 2 * widths))
            & (right >= self._accurate)
            & (mean > 0)
            & (mean < self._small)
            & ~grows
        )
        surely = grows & ~(mean <= SURELY * growth * before) & ~(mean <= NEARLY * self._small)
        self._latch.feed(
            steps, on, (mean > RECOVERED * self._small) | surely, {"margin": mean, "accuracy": right}
        )

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._latch
        if not seen.active:
            return []
        margin, accuracy = seen.evidence["margin"], seen.evidence["accuracy"]
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="rewards/margins",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"{accuracy:.0%} of the pairs are right, but by a margin of {margin:.3g} only:"
                " beta makes"
                " the rewards too small to train on",
                advice="Raise beta (0.1 is usual; 0.01 is low for short completions), or the learning"
                " rate if beta is"
                " right: reward = beta x log-ratio.",
                evidence=seen.evidence,
                references=["arXiv 2305.18290", "arXiv 2407.08639"],
            )
        ]
