"""All rules over one run."""

from __future__ import annotations

from collections.abc import Callable

from dpo_telemetry.health.adapter_frozen import AdapterFrozen
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.health.bf16_rounding import Bf16Rounding
from dpo_telemetry.health.empty_completions import EmptyCompletions
from dpo_telemetry.health.findings import findings
from dpo_telemetry.health.loss_not_falling import LossNotFalling
from dpo_telemetry.health.nonfinite import NonFinite
from dpo_telemetry.health.reference_mismatch import ReferenceMismatch
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.series.columns import Rows

RULES: dict[str, Callable[[Context], Rule]] = {
    "nonfinite": NonFinite,
    "empty_completions": EmptyCompletions,
    "reference_mismatch": ReferenceMismatch,
    "adapter_frozen": AdapterFrozen,
    "loss_not_falling": LossNotFalling,
    "bf16_rounding": Bf16Rounding,
}
"""By the code of their alerts."""


class Diagnosis:
    """Feeds rows to every rule and collects what they say."""

    def __init__(self, context: Context) -> None:
        self._rules = [rule(context) for rule in RULES.values()]

    def feed(self, rows: Rows) -> None:
        """Let every rule look at the next rows, which come in the order of their steps."""
        if len(rows):
            for rule in self._rules:
                rule.feed(rows)

    def alerts(self) -> list[HealthAlert]:
        """What all rows so far show, the gravest first."""
        found = [alert for rule in self._rules for alert in rule.alerts()]
        return sorted(found, key=HealthAlert.rank)

    def findings(self) -> list[Finding]:
        """Causes with the symptoms they explain."""
        return findings(self.alerts())
