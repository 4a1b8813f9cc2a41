"""nonfinite: a logged value is NaN or infinite.

A loss or gradient that is not finite is the real thing: the update it belongs to is void. A
metric's NaN beside a finite loss is a mean over no positions or over masked infinities
(trl#2435) and says nothing of the model.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.rule import Context, Sighting
from dpo_telemetry.series.columns import Rows

CODE = "nonfinite"

VITAL = ("loss", "grad_norm", "eval_loss")
"""Metrics whose NaN is the model's and not the metric's."""


class NonFinite:
    """Counts values that are not finite, metric by metric."""

    def __init__(self, context: Context) -> None:
        self._seen: dict[str, Sighting] = {}

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        for name in rows.columns:
            steps, values = rows.logged(name)
            bad = ~np.isfinite(values)
            if bad.any():
                self._seen.setdefault(name, Sighting()).add(steps[bad])

    def alerts(self) -> list[HealthAlert]:
        """One alert a metric."""
        return [self._alert(name, seen) for name, seen in self._seen.items()]

    @staticmethod
    def _alert(name: str, seen: Sighting) -> HealthAlert:
        vital = name in VITAL
        times = "once" if seen.count == 1 else f"{seen.count} times"
        return HealthAlert(
            code=CODE,
            severity="critical" if vital else "warning",
            metric=name,
            step=seen.first_step,
            last_step=seen.last_step,
            count=seen.count,
            message=f"{name} is not finite, {times}, first at step {seen.first_step}",
            advice="Stop, go back to the last good checkpoint, lower the learning rate, and look at the samples"
            " of that step; fp16 overflows where bf16 does not."
            if vital
            else "Loss and gradient decide: while they are finite this is a mean over no positions or over"
            " masked infinities, so look for empty completions first.",
        )
