"""nonfinite: a logged value is NaN or infinite.

A loss or gradient that is not finite is the real thing: the update it belongs to is void, and
the weights behind it are NaN unless something skipped it. fp16 ends at 65,504, bf16 at 3e38, so
logits that overflow in one do not in the other (trl#878). A metric's NaN beside a finite loss is
a mean over no positions or over masked infinities (trl#2435) and says nothing of the model: a
warning, never critical. An infinite or NaN gradient norm in the first rows of a run that goes on
well is a loss scaler finding its scale (fp16): the step was skipped, which is a note.
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
RECOVERED_ROWS = 10
"""Finite gradients in a row after which the scaler has found it."""


class NonFinite(Rule):
    """Counts values that are not finite, metric by metric."""

    KINDS = ALL
    NEEDS = ()
    SEVERITIES = ("info", "warning", "critical")

    def __init__(self, context: Context) -> None:
        self._seen: dict[str, Sighting] = {}
        self._gradients = self._last_bad_gradient = 0

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
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
            severity = "info"
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
            " samples"
            " of that step; fp16 overflows where bf16 does not."
            if vital
            else "Loss and gradient decide: while they are finite this is a mean over no positions or over"
            " masked infinities, so look for empty completions first.",
            evidence={"rows": seen.count},
            references=["trl#878", "LlamaFactory#7531"] if vital else ["trl#2435"],
        )

    def _scaled(self) -> bool:
        """Whether only first gradients were bad, all is well since, and no loss ever was."""
        well = self._gradients - self._last_bad_gradient >= RECOVERED_ROWS
        return (
            well and self._last_bad_gradient <= SCALER_ROWS and not self._seen.keys() & {"loss", "eval_loss"}
        )
