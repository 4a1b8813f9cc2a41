"""grad_vanishing: next to no gradient arrives, and the loss has not fallen.

The gradient of the sigmoid loss is beta x sigmoid(-margin) x (gradient of the log-ratios'
difference). At a margin of 0 the factor is beta / 2, so a healthy start has a gradient; it fades
only as margins grow, and then the loss is near 0 as well. A gradient of (next to) 0 beside a
loss that is far from 0 is a graph cut off from its weights: frozen, skipped, detached by
checkpointing without `enable_input_require_grads`, or nothing left in the loss mask. A log whose
norms are 0 from its first row to its last although the loss falls has a logger that does not
know them (some DeepSpeed versions), and nothing is wrong.
Hinge (relu(1 - margin)) has a gradient of 0 behind a margin of 1, where its loss is 0 too.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import SUPERVISED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import First, Latch, Mean, Pace, Trailing, aligned, beside
from dpo_telemetry.series.columns import Rows

CODE = "grad_vanishing"

FIRST_ROWS = 5
"""Rows whose loss stands for the start."""
NOT_FALLEN = 0.9
"""A loss above this share of its start has not fallen."""
LONG_ROWS = 25
"""Rows over which the loss has to stay where no gradient was ever logged."""
NEVER_WINDOWS = 2
"""Windows without any gradient after which a loss would have begun to fall if its gradients were not logged."""
NOT_ARRIVED = 0.2
"""A loss above this share of its start still has a gradient; below, it may have faded with the loss."""


class GradVanishing(Rule):
    """Looks for a window without gradients."""

    KINDS = SUPERVISED
    NEEDS = ("grad_norm", "loss")
    SEVERITIES = ("critical",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._limit, rows = limits.vanishing_grad_norm, limits.vanishing_rows
        self._rows = rows
        self._faint, self._loss, self._norm = Trailing(rows), Trailing(rows), Trailing(rows)
        self._start = First(FIRST_ROWS)
        self._highest, self._fed = 0.0, 0
        self._pace, self._long_loss = Pace(LONG_ROWS), Mean(LONG_ROWS)
        self._latch = Latch()

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (norm, loss) = aligned(rows, *self.NEEDS)
        if len(steps) == 0:
            return
        self._start.feed(loss)
        updated = beside(rows, "learning_rate", *self.NEEDS) != 0
        share = self._faint.feed(((norm <= self._limit) & updated).astype(np.float64))
        mean_loss, mean_norm = self._loss.feed(loss), self._norm.feed(norm)
        had = np.maximum.accumulate(np.append(self._highest, norm))[1:] > self._limit
        self._highest = max(self._highest, float(norm.max()))
        start = self._start.median
        widths = self._pace.feed(steps)
        at = self._fed + np.arange(1, len(steps) + 1)
        self._fed += len(steps)
        never = (
            (at >= NEVER_WINDOWS * self._rows)
            & (self._long_loss.feed(loss, widths) >= NOT_FALLEN * start)
            & (mean_loss >= NOT_FALLEN * start)
        )
        stuck = np.where(had, mean_loss >= NOT_ARRIVED * start, never)
        evidence = {"grad_norm": mean_norm, "loss": mean_loss}
        self._latch.feed(steps, (share >= 1) & stuck, (share < 0.5) | ~stuck, evidence)

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._latch
        if not seen.active:
            return []
        rows = seen.count + self._rows - 1
        norm, loss = seen.evidence["grad_norm"], seen.evidence["loss"]
        return [
            HealthAlert(
                code=CODE,
                severity="critical",
                metric="grad_norm",
                step=seen.first_step,
                last_step=seen.last_step,
                count=rows,
                message=f"the gradient norm is {norm:.3g} over {rows} rows while the loss stays at"
                f" {loss:.4g}:"
                " no gradient reaches the trained weights",
                advice="See that the adapter's parameters require gradients and are in the optimizer, that"
                " gradient checkpointing has enable_input_require_grads, and that completions are not"
                " masked.",
                evidence=seen.evidence,
                references=["trl#1311", "axolotl#2754", "accelerate#3983"],
            )
        ]
