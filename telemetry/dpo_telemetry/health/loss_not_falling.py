"""loss_not_falling: many steps, and the loss is still that of a coin toss.

The sigmoid loss of a margin of 0 is ln 2. A run that learns pulls its mean below; early on the
noise of single batches hides it, so the rule compares the mean of the last rows with ln 2 and
asks for enough rows that a healthy run would show. While the learning rate still rises, nothing
is expected of a run.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.rule import LN2, LN2_TOLERANCE, Context
from dpo_telemetry.series.columns import Mask, Rows

CODE = "loss_not_falling"

MIN_ROWS = 50
"""Rows before the rule has an opinion: warm-up and noise come first."""
MIN_WINDOW_ROWS, MAX_WINDOW_ROWS = 25, 200
"""Bounds of the rows whose mean is compared with ln 2: the later half of those behind the warm-up."""
START_TOLERANCE = 0.05
"""A log whose first loss is further from ln 2 than this is not a fresh sigmoid DPO run."""


class LossNotFalling:
    """Keeps the last losses and compares their mean with ln 2."""

    def __init__(self, context: Context) -> None:
        self._applies = context.loss_kind in (None, "sigmoid")
        self._rows = 0
        self._window: deque[tuple[int, float]] = deque(maxlen=MAX_WINDOW_ROWS)
        self._settled_rows = 0
        self._trained = False
        self._highest_rate = 0.0

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, losses = rows.logged("loss")
        keep = np.isfinite(losses)
        steps, losses = steps[keep], losses[keep]
        if self._rows == 0 and len(losses):
            self._applies &= bool(abs(losses[0] - LN2) < START_TOLERANCE)
        self._trained |= bool(rows.columns.keys() & {"rewards/chosen", "rewards/margins"})
        self._rows += len(losses)
        for step, loss, rises in zip(steps.tolist(), losses.tolist(), self._rises(rows)[keep], strict=True):
            if rises:
                self._window.clear()
                self._settled_rows = 0
            self._settled_rows += 1
            self._window.append((step, loss))

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        enough = self._rows >= MIN_ROWS and self._settled_rows >= MIN_WINDOW_ROWS
        if not self._applies or not self._trained or not enough:
            return []
        window = list(self._window)[-max(MIN_WINDOW_ROWS, self._settled_rows // 2) :]
        mean = sum(loss / len(window) for _, loss in window)
        if mean < LN2 - LN2_TOLERANCE:
            return []
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="loss",
                step=window[0][0],
                last_step=window[-1][0],
                count=self._rows,
                message=f"after {self._rows} rows the loss is {mean:.4f} on average, no better than a coin toss"
                f" (ln 2 = {LN2:.4f})",
                advice="Raise the learning rate, see that completions are not empty and the adapter is"
                " trainable, and look at whether the pairs can be told apart at all.",
            )
        ]

    def _rises(self, rows: Rows) -> Mask:
        """Which rows with a loss have a learning rate above all before them."""
        logged = rows.present["loss"] if "loss" in rows.present else np.zeros(len(rows), np.bool_)
        if "learning_rate" not in rows.columns:
            return np.zeros(np.count_nonzero(logged), np.bool_)
        rates = np.nan_to_num(rows.columns["learning_rate"], nan=0.0, posinf=0.0, neginf=0.0)
        highest = np.maximum.accumulate(np.concatenate([[self._highest_rate], rates]))
        self._highest_rate = float(highest[-1])
        return (rates > highest[:-1])[logged]
