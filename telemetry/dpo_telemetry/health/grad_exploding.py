"""grad_exploding: gradients far above those of the start, row after row.

The logged norm is that before clipping. The gradient of the sigmoid loss is at most beta x the
gradient of the log-ratios' difference, so it does not grow by itself: norms of hundreds that
were units at the start are a policy thrown far from its reference (learning rate), outliers, or
numbers near the end of fp16 (65,504). Single spikes are normal, above all in small batches;
clipping is there for them. Norms that are large from the start may be the scale of the loss (a
sum over many tokens, a large beta); beside a loss that climbs they are an explosion as well.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import ALL
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import First, Latch, Trailing, aligned
from dpo_telemetry.series.columns import Rows

CODE = "grad_exploding"

FIRST_ROWS = 5
"""Rows of which the least stands for the start: a high learning rate may blow up at the second."""
WINDOW_ROWS = 10
CALM_ROWS = 15
"""Rows without a large gradient after which the alert is taken back."""
LONG_ROWS = 20
ALWAYS_SHARE = 0.7
"""Share of large gradients in the long window that goes for all of them."""
CLIMB = 2.0
"""Factor above its start at which a loss climbs."""


class GradExploding(Rule):
    """Counts large gradients in a short window."""

    KINDS = ALL
    NEEDS = ("grad_norm",)
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._limit, self._growth = limits.exploding_grad_norm, limits.exploding_growth
        self._share = limits.exploding_share
        self._large, self._any = Trailing(WINDOW_ROWS), Trailing(CALM_ROWS)
        self._start = First(FIRST_ROWS)
        self._latch = Latch()
        self._always, self._loss, self._first_loss = Trailing(LONG_ROWS), Trailing(LONG_ROWS), First(1)
        self._from_the_start = Latch()

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (norm,) = aligned(rows, *self.NEEDS)
        if len(steps) == 0:
            return
        before = len(self._start.values)
        self._start.feed(norm)
        # Rows before the start is known are no part of an explosion, whatever the chunk they came in.
        known = before + np.arange(1, len(norm) + 1) >= FIRST_ROWS
        base = min(self._start.values)
        large = known & (norm > self._limit) & (norm > self._growth * base)
        share = self._large.feed(large.astype(np.float64))
        calm = self._any.feed(large.astype(np.float64)) <= 0
        self._latch.feed(steps, share >= self._share, calm, {"grad_norm": norm, "share": share})
        self._watch_losses(rows)

    def _watch_losses(self, rows: Rows) -> None:
        """Gradients that were large from the start are the loss's scale, unless the loss climbs."""
        steps, (norm, loss) = aligned(rows, "grad_norm", "loss")
        if len(steps) == 0:
            return
        self._first_loss.feed(loss)
        share, mean = self._always.feed((norm > self._limit).astype(np.float64)), self._loss.feed(loss)
        climbs = mean >= CLIMB * self._first_loss.values[0]
        evidence = {"grad_norm": norm, "share": share, "loss": mean}
        self._from_the_start.feed(steps, climbs & (share >= ALWAYS_SHARE), share < ALWAYS_SHARE / 2, evidence)

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._latch if self._latch.active else self._from_the_start
        if not seen.active:
            return []
        base = min(self._start.values)
        norm, share = seen.evidence["grad_norm"], seen.evidence["share"]
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="grad_norm",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"{share:.0%} of the last gradient norms are above {self._limit:g}, the last"
                f" {norm:.3g}, where the run began with {base:.3g}",
                advice="Lower the learning rate or lengthen the warm-up, clip gradients (max_grad_norm"
                " 1.0), look"
                " at the samples of those steps, and use bf16 where fp16 was used.",
                evidence={**seen.evidence, "start": base},
                references=["trl#878"],
            )
        ]
