"""empty_completions: no token of the completions reaches the loss.

A log-prob is a sum over the completion's tokens; it is exactly 0 only when the sum is empty.
The margin is then 0, the loss exactly ln 2 and the gradient 0: nothing is learned, for ever.
The usual reason is a `max_length` that cuts the completion off behind the prompt.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import PREFERENCE
from dpo_telemetry.health.rule import Context, Rule, Sighting
from dpo_telemetry.health.windows import figures
from dpo_telemetry.series.columns import Rows

CODE = "empty_completions"


class EmptyCompletions(Rule):
    """Counts rows whose log-probs are exactly 0."""

    KINDS = PREFERENCE
    NEEDS = ("logps/chosen", "logps/rejected")
    SEVERITIES = ("warning", "critical")

    def __init__(self, context: Context) -> None:
        self._critical_share = context.thresholds.empty_critical_share
        self._empty = Sighting()
        self._judged = 0

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        chosen, rejected = rows.columns.get("logps/chosen"), rows.columns.get("logps/rejected")
        if chosen is None or rejected is None:
            return
        logged = rows.present["logps/chosen"] & rows.present["logps/rejected"]
        empty = logged & ((chosen == 0) | (rejected == 0))
        self._judged += int(np.count_nonzero(logged))
        self._empty.add(rows.steps[empty])

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._empty
        if seen.count == 0:
            return []
        share = seen.count / self._judged
        return [
            HealthAlert(
                code=CODE,
                severity="critical" if share >= self._critical_share else "warning",
                metric="logps/chosen",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"log-probs are exactly 0 in {share:.0%} of the rows: no token of those completions"
                " reaches the loss, as when max_length cuts them off behind their prompts",
                advice="Raise max_length until completions fit behind their prompts, or drop the pairs"
                " that do"
                " not fit; check that the loss mask does not cover the completion.",
                evidence=figures({"share": share, "rows": self._judged}),
                references=["trl#2435"],
            )
        ]
