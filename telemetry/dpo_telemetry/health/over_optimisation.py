"""over_optimisation: the loss is next to 0 and margins are huge; there is nothing left to learn.

At a margin of m the sigmoid loss is log(1 + exp(-m)) and its gradient beta x sigmoid(-m): at 10
they are some 5e-5 of what they were. margin / beta is the log-odds by which the policy has moved
from its reference: 100 nats at a margin of 10 and beta 0.1. With every pair right this says
leaked or trivially separable pairs (length, format), a learning rate too high or a beta too
small, or too many epochs: quality falls long before (arXiv 2210.10760, arXiv 2406.02900).
"""

from __future__ import annotations

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import REFERENCED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import Latch, Trailing, aligned
from dpo_telemetry.series.columns import Rows

CODE = "over_optimisation"

NEEDED = ("rewards/margins", "rewards/accuracies", "loss")
WINDOW_ROWS = 10


class OverOptimisation(Rule):
    """Looks for a window of huge margins in which every pair is right."""

    KINDS = REFERENCED
    NEEDS = NEEDED
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._beta = context.assumed_beta
        self._margin_limit, self._accuracy_limit = limits.over_margin, limits.over_accuracy
        self._loss_limit = limits.over_loss
        self._margin, self._accuracy, self._loss = (Trailing(WINDOW_ROWS) for _ in NEEDED)
        self._latch = Latch()

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (margin, accuracy, loss) = aligned(rows, *NEEDED)
        if len(steps) == 0:
            return
        margin, accuracy, loss = (
            self._margin.feed(margin),
            self._accuracy.feed(accuracy),
            self._loss.feed(loss),
        )
        on = (margin >= self._margin_limit) & (accuracy >= self._accuracy_limit) & (loss <= self._loss_limit)
        off = margin < self._margin_limit / 2
        self._latch.feed(steps, on, off, {"margin": margin, "accuracy": accuracy, "loss": loss})

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._latch
        if not seen.active:
            return []
        margin, accuracy, loss = (seen.evidence[name] for name in ("margin", "accuracy", "loss"))
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="rewards/margins",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"the margin is {margin:.3g} and the loss {loss:.2g} with {accuracy:.0%} of the"
                " pairs right:"
                f" the policy has moved some {margin / self._beta:.0f} nats (beta {self._beta:g}) and"
                " learns nothing more",
                advice="Stop earlier or make fewer epochs, lower the learning rate, raise beta; look at"
                " whether length"
                " or format alone tells chosen from rejected, and whether evaluation pairs leaked.",
                evidence=seen.evidence,
                references=["arXiv 2406.02900", "arXiv 2210.10760"],
            )
        ]
