"""base_corrupted: the first losses are far above what the loss starts at.

Before the first update policy and reference agree, every margin is 0, and the loss is that of a
margin of 0 (`kind.py` has it for each of TRL's losses: ln 2 for sigmoid). 13 where 0.69 is
expected is a policy whose base has lost its numbers: 8-bit under ZeRO-3, a quantisation state
that sharding dropped. A language model's loss per token is at most ln(vocabulary) for one that
guesses: 12.5 for 262,144 tokens; more is worse than guessing, whatever the model.

What starts elsewhere in good health is left alone: IPO at 1 / (4 beta^2), 25 at beta 0.1, and
losses that a trainer summed over its accumulation steps instead of averaging them (a multiple of
ln 2, trl#2615). First rewards that are not 0 are `reference_mismatch`'s, unless the policy's
log-probs are a multiple of the reference's, which are (log-prob - reward / beta), or the loss is
further above its start than margins to both sides of 0 can bring it.

A language model that logs its entropy can be judged below that bound too: cross-entropy is
entropy plus the divergence from the data, so a pretrained model's loss lies near its entropy. A
loss of twice the entropy that does not fall is a model that is sure of what is wrong.
"""

from __future__ import annotations

import math

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import LN2, SUPERVISED, start_loss
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import First, Latch, Trailing, aligned, figures
from dpo_telemetry.series.columns import Rows

CODE = "base_corrupted"

FIRST_ROWS = 3
"""Rows whose median stands for the start."""
REWARDS = ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
AT_START = 0.5
"""Rewards up to this are those of a policy that is still its reference."""
REFERENCE_FACTOR = 3
"""How much further above its start the loss has to be where rewards are not 0 either."""
USUAL_BETAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
CLOSE = 0.02
"""Relative distance up to which a loss is taken for a known start."""
FIRST_STEPS = 5
"""A first row up to this step sums up updates that change little."""
RATIO_GROWTH = 1.5
"""Factor by which the ratio grows when it is training that drives log-probs down."""
MOST_ACCUMULATION_STEPS = 256
BF16 = 2.0**-8
"""Relative error of a sum that was kept in bf16."""
WINDOW_ROWS = 10
"""Rows over which loss and entropy are compared."""
SURE_AND_WRONG = 2.0
"""Factor, and nats, by which the loss lies above the entropy."""
NOT_FALLEN = 0.8
"""Share of its start below which a loss has fallen."""


class BaseCorrupted(Rule):
    """Judges the first rows of a log."""

    KINDS = SUPERVISED
    NEEDS = ("loss",)
    SEVERITIES = ("critical",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._kind, self._beta = context.loss_kind, context.assumed_beta
        self._factor, self._worst = limits.corrupt_loss_factor, limits.guessing_loss
        self._ratio = limits.corrupt_logps_ratio
        self._losses = First(FIRST_ROWS)
        self._rewards, self._ratios = First(FIRST_ROWS), First(FIRST_ROWS)
        self._step, self._last_step = 0, 0
        self._losses_with_entropy = First(FIRST_ROWS)
        self._mean, self._entropy = Trailing(WINDOW_ROWS), Trailing(WINDOW_ROWS)
        self._sure = Latch()

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        self._watch_entropy(rows)
        if self._losses.full and self._rewards.full:
            return
        steps, (loss,) = aligned(rows, "loss")
        wanted = FIRST_ROWS - len(self._losses.values)
        if wanted > 0 and len(steps):
            self._step = self._step if self._losses.values else int(steps[0])
            self._last_step = int(steps[:wanted][-1])
        self._losses.feed(loss)
        _, (chosen, rejected, chosen_logps, rejected_logps) = aligned(rows, *REWARDS)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            self._rewards.feed(np.maximum(np.abs(chosen), np.abs(rejected)))
            ratios = [
                logps / (logps - reward / self._beta)
                for logps, reward in ((chosen_logps, chosen), (rejected_logps, rejected))
            ]
            self._ratios.feed(np.nan_to_num(np.minimum(*ratios), nan=0.0, posinf=0.0, neginf=0.0))

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        if not self._losses.full:
            return []
        loss, expected = self._losses.median, self._expected()
        if self._sure.active and not self._rewards.values:
            entropy = self._sure.evidence["entropy"]
            return [
                self._alert(
                    f"the loss stays at {self._sure.evidence['loss']:.4g} where the model's own entropy"
                    f" is {entropy:.3g}",
                    loss,
                    entropy,
                )
            ]
        if self._broken_beside_reference():
            return [
                self._alert(
                    f"log-probs start at {self._ratios.values[0]:.2g} times those of the reference",
                    loss,
                    expected,
                )
            ]
        if expected is not None and self._far_above(loss, expected):
            return [
                self._alert(f"the loss starts at {loss:.4g} where {expected:.4g} is expected", loss, expected)
            ]
        if expected is None and loss >= self._worst:
            return [
                self._alert(f"the loss starts at {loss:.4g}, which is worse than guessing", loss, self._worst)
            ]
        return []

    def _alert(self, text: str, loss: float, expected: float | None) -> HealthAlert:
        return HealthAlert(
            code=CODE,
            severity="critical",
            metric="loss",
            step=self._step,
            last_step=max(self._last_step, self._sure.last_step),
            count=FIRST_ROWS,
            message=f"{text}: the base model's weights are not what they were",
            advice="Load the base without sharding or quantisation and compare one batch's loss; with"
            " 8-bit use"
            " ZeRO-1 or 2, with 4-bit set bnb_4bit_quant_storage to the compute dtype.",
            evidence=figures({"loss": loss, "expected": self._worst if expected is None else expected}),
            references=["bitsandbytes#1451", "bitsandbytes#1945", "accelerate#3983"],
        )

    def _watch_entropy(self, rows: Rows) -> None:
        steps, (loss, entropy) = aligned(rows, "loss", "entropy")
        if len(steps) == 0:
            return
        self._losses_with_entropy.feed(loss)
        loss, entropy = self._mean.feed(loss), self._entropy.feed(entropy)
        above = np.minimum(loss / np.maximum(entropy, 1e-6), loss - entropy)
        on = (above >= SURE_AND_WRONG) & (loss >= NOT_FALLEN * self._losses_with_entropy.median)
        self._sure.feed(steps, on, above < SURE_AND_WRONG * 0.9, {"loss": loss, "entropy": entropy})

    def _broken_beside_reference(self) -> bool:
        """Whether log-probs lie far below the reference's from the first row on, and fall no further."""
        if not self._ratios.full or self._step > FIRST_STEPS:
            return False
        first, *others = self._ratios.values
        return min(self._ratios.values) >= self._ratio and max(others) <= RATIO_GROWTH * first

    def _expected(self) -> float | None:
        """Where the loss should start; None when only the bound of a language model is known."""
        if self._kind is not None:
            return start_loss(self._kind, self._beta)
        return LN2 if self._rewards.values else None

    def _far_above(self, loss: float, expected: float) -> bool:
        start = max(expected, LN2)
        if self._rewards.median > AT_START:
            # Another reference spreads margins to both sides, which costs less.
            return self._step <= FIRST_STEPS and loss >= REFERENCE_FACTOR * self._factor * start
        return loss >= self._factor * start and not self._known_start(loss)

    def _known_start(self, loss: float) -> bool:
        """Whether a healthy trainer may have written a first loss like this."""
        if not self._rewards.values:
            return False
        betas = USUAL_BETAS if self._kind is None else ()
        starts = [start_loss(kind, beta) for beta in betas for kind in ("ipo", "sppo_hard")]
        if any(start is not None and abs(loss - start) <= CLOSE * start for start in starts):
            return True
        steps = round(loss / LN2)
        close = max(
            0.01 * LN2 * max(1.0, steps / 16),
            BF16 * loss if self._expected() == LN2 and self._in_bf16() else 0.0,
        )
        return steps <= MOST_ACCUMULATION_STEPS and abs(loss - steps * LN2) <= close

    def _in_bf16(self) -> bool:
        """Whether the first losses, printed with four decimals, lie on bf16's grid."""
        grids = [2.0 ** (math.floor(math.log2(max(loss, LN2))) - 7) for loss in self._losses.values]
        pairs = zip(self._losses.values, grids, strict=True)
        return all(abs(loss - round(loss / grid) * grid) <= 1e-4 for loss, grid in pairs)
