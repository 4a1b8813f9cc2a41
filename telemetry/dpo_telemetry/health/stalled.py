"""stalled: a run that had begun to learn stands still before it has arrived.

Two ways to stand still are told apart from having converged. The learning rate has shrunk to
next to nothing of its peak for a good part of the run, while the loss is still far from 0: the
schedule ended before the run. Or margins have stopped: from the third quarter of the run to the
last their growth is, with its standard error, a small part of what had been reached, although
the learning rate is still up. New pairs converge far above 0 (the entropy of labels of which a
quarter are wrong is 0.56), so a plateau counts on pairs that were seen before; on new ones only
where it was reached early in the run, and either next to nothing had been learned by then or
nearly all pairs are right: the logistic loss of separable pairs has no finite minimum, so their
margins grow as long as anything is updated. Where noise leaves it open whether margins grow, the
rule says nothing.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import REFERENCED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.thresholds import Thresholds
from dpo_telemetry.health.windows import LARGEST, First, History, Latch, Mean, Pace, aligned, beside, figures
from dpo_telemetry.series.columns import Floats, Ints, Mask, Rows

CODE = "stalled"

NEEDED = ("loss", "rewards/margins", "rewards/accuracies")
FIRST_ROWS = 5
PLATEAU_ROWS = 60
"""Rows of a run before its quarters are compared."""
STILL_UP = 0.3
"""Share of its peak above which a learning rate could still move something."""
SEPARABLE = 0.9
"""Share of pairs right from which new pairs are as good as separable."""
FIRST, MOVED = (0.0, 0.05), 0.5
"""Part of the run in which margins have to lie below this share of their plateau: it was reached later."""
EARLY, STOPPED = (0.15, 0.25), 0.85
"""Part of the run in which new pairs' margins have to have reached this share of their plateau already."""
ARRIVED = 0.2
"""Share of its start below which a loss has little left to fall."""


class Stalled(Rule):
    """Looks at learning rates, and at the growth of margins over the run."""

    KINDS = REFERENCED
    NEEDS = NEEDED
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        self._limits = limits = context.thresholds
        self._start = First(FIRST_ROWS)
        self._pace, self._loss = Pace(limits.window_rows), Mean(limits.window_rows)
        self._rows, self._faint_rows, self._peak = 0, 0, 0.0
        self._ended = Latch()
        self._history = History(6)
        self._steps = (0, 0)

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (loss, margin, accuracy) = aligned(rows, *NEEDED)
        if len(steps) == 0:
            return
        self._start.feed(loss)
        widths = self._pace.feed(steps)
        mean = self._loss.feed(loss, widths)
        arrived = mean <= self._limits.ended_loss_share * self._start.median
        share = self._watch_schedule(steps, beside(rows, "learning_rate", *NEEDED), mean, arrived)
        epoch = np.minimum(np.maximum(np.nan_to_num(beside(rows, "epoch", *NEEDED)), 0.0), LARGEST)
        margin = np.minimum(np.maximum(margin, -LARGEST), LARGEST)
        self._history.feed(loss, margin, np.square(margin), accuracy, share, epoch)
        self._steps = (self._steps[0] or int(steps[0]), int(steps[-1]))

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        if self._ended.active:
            seen = self._ended
            loss, peak = seen.evidence["loss"], seen.evidence["peak_learning_rate"]
            return [
                HealthAlert(
                    code=CODE,
                    severity="warning",
                    metric="learning_rate",
                    step=seen.first_step,
                    last_step=seen.last_step,
                    count=seen.count,
                    message=f"the learning rate has been next to 0 (peak {peak:.3g}) for"
                    f" {seen.evidence['rows']:.0f}"
                    f" rows while the loss stands at {loss:.4g}: the schedule ended early",
                    advice="Make the schedule as long as the run (max_steps, epochs and resume count).",
                    evidence=seen.evidence,
                    references=["transformers#10362"],
                )
            ]
        evidence = _plateau(self._history, self._limits, self._start.median)
        if evidence is None:
            return []
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="rewards/margins",
                step=self._steps[0] + (self._steps[1] - self._steps[0]) // 2,
                last_step=self._steps[1],
                count=self._history.rows // 2,
                message=f"margins stand still at {evidence['margin']:.3g} and the loss at"
                f" {evidence['loss']:.4g} over"
                " half of the run, although the learning rate is still up",
                advice="See that the optimizer still steps (fp16 overflows, a frozen adapter after a"
                " resume), then"
                " raise the learning rate or look for pairs that contradict each other.",
                evidence=evidence,
                references=["DeepSpeed#697"],
            )
        ]

    def _watch_schedule(self, steps: Ints, rate: Floats, loss: Floats, arrived: Mask) -> Floats:
        """Share of the peak that each learning rate is; raises the latch where it is next to nothing."""
        limits = self._limits
        known = np.nan_to_num(rate, nan=-1.0, posinf=0.0, neginf=0.0)
        peaks = np.maximum.accumulate(np.concatenate([[self._peak], known]))[1:]
        share = np.where(
            (known >= 0) & (peaks > 0), np.maximum(known, 0.0) / np.where(peaks > 0, peaks, 1.0), 1.0
        )
        at = np.arange(len(steps))
        last_up = np.maximum.accumulate(np.where(share > limits.ended_rate_share, at, -1))
        faint = np.where(last_up < 0, self._faint_rows + at + 1, at - last_up)
        so_far = self._rows + at + 1
        on = ~arrived & (faint >= limits.window_rows) & (faint >= limits.ended_rows_share * so_far)
        evidence = {"peak_learning_rate": peaks, "loss": loss, "rows": faint.astype(np.float64)}
        self._ended.feed(steps, on, faint == 0, evidence)
        self._peak, self._rows, self._faint_rows = float(peaks[-1]), int(so_far[-1]), int(faint[-1])
        return share


def _plateau(history: History, limits: Thresholds, start: float) -> dict[str, float] | None:
    """Figures of a run whose margins stopped growing at half of it; None while they grow or may grow."""
    if history.rows < PLATEAU_ROWS:
        return None
    before, last = history.mean(0.5, 0.75), history.mean(0.75, 1.0)
    loss, margin, _, accuracy, share, _ = last.tolist()
    variance = sum(max(quarter[2] - quarter[1] ** 2, 0.0) for quarter in (before, last))
    growth = margin - before[1] + float(np.sqrt(variance / (history.rows / 4)))
    moved = history.mean(*FIRST)[1] <= MOVED * margin
    seen_again = before[5] >= 1.0 and history.mean(0.25, 0.5)[1] >= STOPPED * margin
    stopped_early = history.mean(*EARLY)[1] >= STOPPED * margin
    little_learned = loss >= limits.stalled_loss_share * start and accuracy <= limits.stalled_accuracy
    would_grow = seen_again or (stopped_early and (accuracy >= SEPARABLE or little_learned))
    stands = margin >= limits.moved_reward and growth <= limits.stalled_growth * margin
    if not (
        would_grow and moved and stands and min(share, before[4]) >= STILL_UP and loss >= ARRIVED * start
    ):
        return None
    return figures({"margin": margin, "growth_at_most": growth, "loss": loss, "accuracy": accuracy})
