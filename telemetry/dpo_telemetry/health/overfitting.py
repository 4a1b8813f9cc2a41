"""overfitting: the evaluation's loss climbs away from its best while training's stays low.

Both estimate the same expectation, one on pairs that were learned from and one on pairs that
were not. As long as they fall together the policy generalises; once the evaluation's rises and
training's does not, what is still learned is the training set. A loss per pair of
-log sigmoid(margin) makes this loud: confident wrong answers cost about -margin each, so
eval_loss can rise while eval accuracy stands still.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import SUPERVISED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import Latch, Trailing, aligned, figures
from dpo_telemetry.series.columns import Rows

CODE = "overfitting"

TRAIN_ROWS = 10
EVALUATIONS = 2
"""Evaluations in a row that have to lie above the best one."""


class Overfitting(Rule):
    """Holds evaluations against the best of them and against training."""

    KINDS = SUPERVISED
    NEEDS = ("eval_loss", "loss")
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._rise, self._least_rise = limits.overfit_rise, limits.overfit_least_rise
        self._best = float("inf")
        self._above = Trailing(EVALUATIONS)
        self._latch = Latch()
        self._train = Trailing(TRAIN_ROWS)
        self._train_loss = self._train_best = float("inf")

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        _, (loss,) = aligned(rows, "loss")
        mean = self._train.feed(loss)
        mean = mean[np.isfinite(mean)]
        if len(mean):
            self._train_loss, self._train_best = float(mean[-1]), min(self._train_best, float(mean.min()))
        steps, (loss,) = aligned(rows, "eval_loss")
        if len(loss) == 0:
            return
        best = np.minimum.accumulate(np.concatenate([[self._best], loss]))[1:]
        self._best = float(best[-1])
        rise = np.maximum(self._rise * np.abs(best), self._least_rise)
        share = self._above.feed((loss >= best + rise).astype(np.float64))
        self._latch.feed(
            steps, share >= 1, loss < best + rise / 2, {"eval_loss": loss, "best_eval_loss": best}
        )

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._latch
        if not seen.active:
            return []
        loss, best = seen.evidence["eval_loss"], seen.evidence["best_eval_loss"]
        climbed = loss - best
        # A training loss that climbs as well is another matter, and so is one that is no lower.
        if self._train_loss > loss - climbed or self._train_loss > self._train_best + climbed:
            return []
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="eval_loss",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=f"eval_loss has climbed from {best:.4g} to {loss:.4g} while the training loss is"
                f" {self._train_loss:.4g}: what is still learned is the training set",
                advice="Take the checkpoint of the lowest eval_loss; make fewer epochs (one is usual for"
                " DPO), lower"
                " the learning rate, add pairs, or raise beta.",
                evidence={**seen.evidence, **figures({"loss": self._train_loss})},
                references=["arXiv 2310.16944", "arXiv 2406.02900"],
            )
        ]
