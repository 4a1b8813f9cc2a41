"""likelihood_displacement: margins grow although the chosen answers grow less likely.

The loss sees only the difference of two log-ratios, so it falls as well when both fall and the
rejected one falls faster. Common after SFT on the chosen answers, and harmless in moderation
(trl#800): a note. It is a warning once the chosen answers have collapsed, that is, once their
log-prob has become a multiple of what it was at the start: the probability mass went to answers
that are in no pair (arXiv 2410.08847, arXiv 2402.13228). Log-probs that fall while the loss rises
are a policy that was thrown about, which other rules tell.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import DPO
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import First, Latch, Mean, Pace, aligned
from dpo_telemetry.series.columns import Rows

CODE = "likelihood_displacement"

NEEDED = ("loss", "rewards/chosen", "rewards/rejected", "logps/chosen")

FIRST_ROWS = 5
"""Rows whose log-probs stand for the start."""

UNMOVED_REWARD = 0.5
"""Reward up to which a row's log-probs are those that the run started from."""


class LikelihoodDisplacement(Rule):
    """Follows chosen rewards and log-probs."""

    KINDS = DPO
    NEEDS = NEEDED
    SEVERITIES = ("info", "warning")

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        rows = limits.window_rows
        self._moved, self._factor = limits.displaced_reward, limits.collapse_factor
        self._least_nats = limits.collapse_nats
        self._pace = Pace(rows)
        self._loss, self._chosen, self._rejected, self._logps = (Mean(rows) for _ in NEEDED)
        self._first, self._first_reward, self._first_loss = (First(FIRST_ROWS) for _ in range(3))
        self._falling, self._collapsed = Latch(), Latch()

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (loss, chosen, rejected, logps) = aligned(rows, *NEEDED)
        if len(steps):
            self._first.feed(logps)
            self._first_reward.feed(chosen)
            self._first_loss.feed(loss)
            widths = self._pace.feed(steps)
            chosen, rejected = self._chosen.feed(chosen, widths), self._rejected.feed(rejected, widths)
            loss, logps = self._loss.feed(loss, widths), self._logps.feed(logps, widths)
            learns = (loss < self._first_loss.median) & (chosen - rejected >= self._moved)
            on = learns & (chosen <= -self._moved)
            evidence = {"reward_chosen": chosen, "reward_rejected": rejected}
            self._falling.feed(steps, on, chosen > -self._moved / 2, evidence)
            start = self._start()
            on &= (logps <= self._factor * start) & (logps <= self._lowest_start() - self._least_nats)
            off = (logps > (1 + self._factor) / 2 * start) | (chosen > -self._moved / 2)
            self._collapsed.feed(steps, on, off, {"logps_chosen": logps, "start": np.full(len(logps), start)})

    def _start(self) -> float:
        """Log-prob of the first rows that had hardly been changed; NaN when there is none."""
        unmoved = self._unmoved()
        return float(np.median(unmoved)) if unmoved else float("nan")

    def _lowest_start(self) -> float:
        """The lowest of them: with one pair a batch they differ as much as the lengths of answers do."""
        return min(self._unmoved(), default=float("nan"))

    def _unmoved(self) -> list[float]:
        pairs = zip(self._first.values, self._first_reward.values, strict=True)
        return [logps for logps, reward in pairs if abs(reward) <= UNMOVED_REWARD]

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        grave = self._collapsed.active
        seen = self._collapsed if grave else self._falling
        if not seen.active:
            return []
        if grave:
            text = (
                f"log-probs of the chosen answers have collapsed from {seen.evidence['start']:.4g} to"
                f" {seen.evidence['logps_chosen']:.4g}"
            )
        else:
            text = (
                f"both rewards fall, chosen to {seen.evidence['reward_chosen']:.3g} and rejected to"
                f" {seen.evidence['reward_rejected']:.3g}: margins grow while the chosen answers grow"
                " less likely"
            )
        return [
            HealthAlert(
                code=CODE,
                severity="warning" if grave else "info",
                metric="logps/chosen" if grave else "rewards/chosen",
                step=seen.first_step,
                last_step=seen.last_step,
                count=seen.count,
                message=text,
                advice="Read generations. If they are poor, add a likelihood term (rpo_alpha, or the sft"
                " loss beside"
                " the DPO loss), lower the learning rate, raise beta, or drop pairs that are nearly the"
                " same.",
                evidence=seen.evidence,
                references=["arXiv 2402.13228", "arXiv 2410.08847", "trl#800"],
            )
        ]
