"""nonfinite: a logged value is NaN or infinite.

A loss or gradient that is not finite is the real thing: the update it belongs to is void, and
the weights behind it are NaN unless something skipped it. fp16 ends at 65,504, bf16 at 3e38, so
logits that overflow in one do not in the other (trl#878). A metric's NaN beside a finite loss is
a mean over no positions or over masked infinities (trl#2435) and says nothing of the model: a
warning, never critical. Infinite or NaN gradient norms in the first rows are a loss scaler finding
its scale (fp16 starts at 2^16 and halves it until nothing overflows): the step was skipped, which is
a note once a good one has followed, and a warning until then. What tells it from the real thing is
the loss: weights that took such an update make the next loss NaN, and one of exactly 0 has lost its
graph.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.events import Severity
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import ALL
from dpo_telemetry.health.rule import Context, Rule, Sighting
from dpo_telemetry.series.columns import Rows

CODE = "nonfinite"

VITAL = ("loss", "grad_norm", "eval_loss")
"""Metrics whose NaN is the model's and not the metric's."""
SCALER_ROWS = 10
"""Rows within which a loss scaler finds its scale."""
SCALER_STREAK = 5
"""So many bad gradients in a row, from 2^16 down to 2^11, are a scaler's; more without a good one are not."""


class NonFinite(Rule):
    """Counts values that are not finite, metric by metric."""

    KINDS = ALL
    NEEDS = ()
    SEVERITIES = ("info", "warning", "critical")

    def __init__(self, context: Context) -> None:
        self._seen: dict[str, Sighting] = {}
        self._gradients = self._last_bad_gradient = 0
        self._lost = False

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        if "loss" in rows.columns:
            self._lost |= bool((rows.present["loss"] & (rows.columns["loss"] == 0)).any())
        for name, values in rows.columns.items():
            bad = rows.present[name] & ~np.isfinite(values)
            if bad.any():
                self._seen.setdefault(name, Sighting()).add(rows.steps[bad])
                if name == "grad_norm":
                    self._last_bad_gradient = (
                        self._gradients + int(np.flatnonzero(bad[rows.present[name]])[-1]) + 1
                    )
            if name == "grad_norm":
                self._gradients += int(np.count_nonzero(rows.present[name]))

    def alerts(self) -> list[HealthAlert]:
        """One alert a metric."""
        return [self._alert(name, seen) for name, seen in self._seen.items()]

    def _alert(self, name: str, seen: Sighting) -> HealthAlert:
        vital = name in VITAL
        severity: Severity = "critical" if vital else "warning"
        if name == "grad_norm" and self._scaled():
            severity = "info" if self._last_bad_gradient < self._gradients else "warning"
        times = "once" if seen.count == 1 else f"{seen.count} times"
        return HealthAlert(
            code=CODE,
            severity=severity,
            metric=name,
            step=seen.first_step,
            last_step=seen.last_step,
            count=seen.count,
            message=f"{name} is not finite, {times}, first at step {seen.first_step}",
            advice="Stop, go back to the last good checkpoint, lower the learning rate, and look at the"
            " samples of that step; fp16 overflows where bf16 does not."
            if vital
            else "Loss and gradient decide: while they are finite this is a mean over no positions or over"
            " masked infinities, so look for empty completions first.",
            evidence={"rows": seen.count},
            references=["trl#878", "LlamaFactory#7531"] if vital else ["trl#2435"],
        )

    def _scaled(self) -> bool:
        """Whether only first gradients were bad, and losses went on as if nothing had been."""
        lost = self._lost or bool(self._seen.keys() & {"loss", "eval_loss"})
        recovered = self._last_bad_gradient < self._gradients
        soon = self._last_bad_gradient <= (SCALER_ROWS if recovered else SCALER_STREAK)
        return soon and not lost
