"""length_bias: one side of the pairs is longer throughout, and every pair is right soon.

A reward is beta x the sum of per-token log-ratios, so a policy gains margin on a long answer by
a little on each of its tokens: where chosen answers are longer throughout, "longer" tells them
apart and is what is learned (arXiv 2403.19159); R-DPO and length-normalised losses are the cure.

TRL's trainer logs no lengths, and what can be told without them is little. Where a log has
lengths of both sides they are used. Otherwise log-probs of the first rows, which training has
hardly changed, stand in: a log-prob is a sum over tokens, so its size is length x nats per token,
and the two cannot be separated. Nats per token of two answers to one prompt seldom differ by
more than a factor of 2, so more than that in the sum warns, and less is for information only.
"""

from __future__ import annotations

import math

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import DPO
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import SHORT_ROWS, First, Latch, Mean, Pace, Trailing, aligned, figures
from dpo_telemetry.series.columns import Rows

CODE = "length_bias"

LENGTHS = (
    ("completions/chosen_length", "completions/rejected_length"),
    ("lengths/chosen", "lengths/rejected"),
    ("length/chosen", "length/rejected"),
    ("chosen_length", "rejected_length"),
    ("chosen_lengths", "rejected_lengths"),
)
"""Names under which trainers log the mean length of both sides, in tokens."""
LOGPS = ("logps/chosen", "logps/rejected")
FIRST_ROWS = 10
EARLIEST_ROWS = 3
"""Rows among them that training can hardly have changed, even where each sums up many steps."""
LEAST_NATS = 1e-3
"""Log-probs nearer to 0 are those of empty completions, and no length."""
SAME_SIDE = 0.9
"""Share of the rows in which it has to be the same side that is longer."""


class LengthBias(Rule):
    """Compares the lengths of both sides, or what stands in for them."""

    KINDS = DPO
    NEEDS = ("rewards/accuracies", *LOGPS)
    SEVERITIES = ("info", "warning")

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._limit = math.log(limits.length_ratio)
        self._logps_limit = limits.length_logps_ratio
        self._accuracy_limit = limits.length_accuracy
        rows = limits.window_rows
        self._pace, self._accuracy = Pace(rows), Mean(rows)
        self._right = Latch()
        self._by_length = {names: (Trailing(SHORT_ROWS), Trailing(SHORT_ROWS), Latch()) for names in LENGTHS}
        self._first = First(FIRST_ROWS)

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (accuracy,) = aligned(rows, "rewards/accuracies")
        widths = self._pace.feed(steps)
        right = self._accuracy.feed(accuracy, widths)
        self._right.feed(
            steps, right >= self._accuracy_limit, right < self._accuracy_limit - 0.1, {"accuracy": right}
        )
        for names, (mean, side, latch) in self._by_length.items():
            steps, (chosen, rejected) = aligned(rows, *names)
            if len(steps) == 0:
                continue
            kept = (chosen >= 1) & (rejected >= 1)
            ratio = np.log(chosen[kept]) - np.log(rejected[kept])
            means, sides = mean.feed(ratio), side.feed(np.sign(ratio))
            on = (np.abs(means) >= self._limit) & (np.abs(sides) >= 2 * SAME_SIDE - 1)
            latch.feed(steps[kept], on, np.abs(means) < self._limit / 2, {"length_ratio": np.exp(means)})
        if not self._first.full:
            _, (chosen, rejected) = aligned(rows, *LOGPS)
            kept = (chosen <= -LEAST_NATS) & (rejected <= -LEAST_NATS)
            self._first.feed(np.log(-chosen[kept]) - np.log(-rejected[kept]))

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        seen = self._right
        if not seen.active:
            return []
        for names, (_, _, latch) in self._by_length.items():
            if latch.active:
                return [
                    self._alert(names[0], latch.evidence["length_ratio"], seen, "by their logged lengths")
                ]
        ratio, sides = self._first.median, np.sign(self._first.values)
        earliest = self._first.values[:EARLIEST_ROWS]
        if not earliest or np.median(earliest) * np.sign(ratio) < self._limit:
            return []
        if not self._first.full or abs(ratio) < self._limit or abs(sides.mean()) < 2 * SAME_SIDE - 1:
            return []
        return [self._alert(LOGPS[0], math.exp(ratio), seen, "by their first log-probs")]

    def _alert(self, metric: str, ratio: float, seen: Latch, how: str) -> HealthAlert:
        longer, shorter = ("chosen", "rejected") if ratio > 1 else ("rejected", "chosen")
        factor = max(ratio, 1 / ratio)
        return HealthAlert(
            code=CODE,
            severity="info" if metric == LOGPS[0] and factor < self._logps_limit else "warning",
            metric=metric,
            step=seen.first_step,
            last_step=seen.last_step,
            count=seen.count,
            message=f"{longer} answers are {factor:.2g} times as long as {shorter} ones throughout,"
            f" {how}, and"
            f" {seen.evidence['accuracy']:.0%} of the pairs are right: length alone may tell them apart",
            advice="Compare accuracy on pairs of like length, balance lengths in the data, or use a loss that"
            " normalises by length (ipo, sigmoid_norm, ld_alpha).",
            evidence={**figures({"ratio": ratio}), **seen.evidence},
            references=["arXiv 2403.19159", "arXiv 2409.06411"],
        )
