"""All rules over one run."""

from __future__ import annotations

from dpo_telemetry.health.accuracy_low import AccuracyLow
from dpo_telemetry.health.adapter_frozen import AdapterFrozen
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.health.base_corrupted import BaseCorrupted
from dpo_telemetry.health.bf16_rounding import Bf16Rounding
from dpo_telemetry.health.empty_completions import EmptyCompletions
from dpo_telemetry.health.findings import findings
from dpo_telemetry.health.grad_exploding import GradExploding
from dpo_telemetry.health.grad_vanishing import GradVanishing
from dpo_telemetry.health.kind import Kind, LogKind
from dpo_telemetry.health.labels_swapped import LabelsSwapped
from dpo_telemetry.health.length_bias import LengthBias
from dpo_telemetry.health.likelihood_displacement import LikelihoodDisplacement
from dpo_telemetry.health.loss_not_falling import LossNotFalling
from dpo_telemetry.health.loss_spike import LossSpike
from dpo_telemetry.health.lr_zero import LrZero
from dpo_telemetry.health.margin_small import MarginSmall
from dpo_telemetry.health.nonfinite import NonFinite
from dpo_telemetry.health.over_optimisation import OverOptimisation
from dpo_telemetry.health.overfitting import Overfitting
from dpo_telemetry.health.reference_mismatch import ReferenceMismatch
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.stalled import Stalled
from dpo_telemetry.series.columns import Rows

RULES: dict[str, type[Rule]] = {
    "nonfinite": NonFinite,
    "empty_completions": EmptyCompletions,
    "reference_mismatch": ReferenceMismatch,
    "adapter_frozen": AdapterFrozen,
    "labels_swapped": LabelsSwapped,
    "base_corrupted": BaseCorrupted,
    "bf16_rounding": Bf16Rounding,
    "loss_not_falling": LossNotFalling,
    "loss_spike": LossSpike,
    "grad_vanishing": GradVanishing,
    "grad_exploding": GradExploding,
    "accuracy_low": AccuracyLow,
    "margin_small": MarginSmall,
    "likelihood_displacement": LikelihoodDisplacement,
    "over_optimisation": OverOptimisation,
    "overfitting": Overfitting,
    "length_bias": LengthBias,
    "lr_zero": LrZero,
    "stalled": Stalled,
}
"""By the code of their alerts."""


class Diagnosis:
    """Feeds rows to every rule and collects what they say."""

    def __init__(self, context: Context) -> None:
        self._rules = [rule(context) for rule in RULES.values()]
        self._kind = LogKind(context.loss_kind)

    @property
    def kind(self) -> Kind:
        """What kind of training the rows so far are of."""
        return self._kind.kind

    def feed(self, rows: Rows) -> None:
        """Let every rule look at the next rows, which come in the order of their steps."""
        if len(rows):
            self._kind.feed(rows)
            for rule in self._rules:
                rule.feed(rows)

    def alerts(self) -> list[HealthAlert]:
        """What all rows so far show, the gravest first; rules for other kinds of training are silent."""
        kind = self.kind
        found = [alert for rule in self._rules if kind in rule.KINDS for alert in rule.alerts()]
        return sorted(found, key=HealthAlert.rank)

    def findings(self) -> list[Finding]:
        """Causes with the symptoms they explain."""
        return findings(self.alerts())
