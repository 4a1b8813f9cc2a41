"""stalled: a run that had begun to learn stands still before it has arrived.

Three ways to stand still are told apart from having converged. The learning rate has shrunk to
next to nothing of its peak for a good part of the run, while the loss is still far from 0: the
schedule ended before the run. Or margins have stopped: from the third quarter of the run to the
last their growth is, with its standard error, a small part of what had been reached, although
the learning rate is still up. New pairs converge far above 0 (the entropy of labels of which a
quarter are wrong is 0.56), so a plateau counts on pairs that were seen before; on new ones only
where it was reached early in the run, and either next to nothing had been learned by then or
nearly all pairs are right: the logistic loss of separable pairs has no finite minimum, so their
margins grow as long as anything is updated. Where noise leaves it open whether margins grow, the
rule says nothing; nor where the loss is least as it is, that is, where margins of any other scale
would raise it: noisy labels and label smoothing hold margins where they are. And nothing moves at
all: an optimizer that still steps moves something: rewards, entropy or logits drift even where the
loss has converged. Where, with the learning rate up, none of a handful of them moves between one
part of the run and the next by more than its standard error allows, updates are skipped.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import REFERENCED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.thresholds import Thresholds
from dpo_telemetry.health.windows import (
    LARGEST,
    First,
    History,
    Latch,
    Mean,
    Milestones,
    Pace,
    aligned,
    beside,
    figures,
)
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
REWARDS = 3
DRIFTING = (
    "rewards/chosen", "rewards/rejected", "rewards/margins", "entropy", "logits/chosen", "logits/rejected",
    "logps/chosen", "logps/rejected",
)  # fmt: skip
"""What an update moves, the rewards first."""
MOST_SENSITIVE = "entropy"
"""Varies least from batch to batch; without it a run that has converged could pass for one that stands."""
DRIFT_PARTS = (0.3, 0.65, 1.0)
"""Ends of the two parts of the run whose means are compared."""
DRIFT_ERRORS = 2.5
"""Standard errors within which every mean has to stay; of eight that drift one goes beyond."""
BEGIN, CLEARLY = (0.0, 0.06), 1.5
"""Part of the run against which a reward has to have moved by so many deviations of a row before it stood: in
noisier logs, as with one pair a batch, standing still cannot be told from moving."""
DRIFT_METRICS = 5
"""Least number of them that has to be logged."""
LOOKS, UNSEEN = 2, 4
"""Looks in a row that have to agree before an alert is raised, and before it is taken back."""
AT_SCALE = 0.25
"""Share of the margin by which the loss lies below its start where larger margins would not lower it further.

With pairs of margin x, softplus(-s x) = ln 2 - s x / 2 + (s x)^2 / 8 in the mean, as long as margins are
moderate. That is least at the scale s = 1 where mean x^2 = 2 mean x, and there the loss is ln 2 - mean x / 4.
"""
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
        self._drift = History(2 * len(DRIFTING))
        self._first_step = self._looks = self._unseen = 0
        self._seen: HealthAlert | None = None
        self._milestones = Milestones(PLATEAU_ROWS)

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
        history = (loss, margin, np.square(margin), accuracy, share, epoch)
        drifting = [_bounded(beside(rows, name, *NEEDED)) for name in DRIFTING]
        self._first_step = self._first_step or int(steps[0])
        for piece, due in self._milestones.cut(len(steps)):
            self._history.feed(*(column[piece] for column in history))
            self._drift.feed(*(column[piece] for column in (*drifting, *map(np.square, drifting))))
            if due:
                self._look(int(steps[piece][-1]))

    def _look(self, step: int) -> None:
        """Judge the run up to a step; one look alone neither raises an alert nor takes it back."""
        seen = self._plateau(step) or self._nothing_moves(step)
        self._looks, self._unseen = (self._looks + 1, 0) if seen else (0, self._unseen + 1)
        if self._looks >= LOOKS or self._unseen >= UNSEEN:
            self._seen = seen

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
                    references=["transformers#27749"],
                )
            ]
        return [self._seen] if self._seen else []

    def _plateau(self, step: int) -> HealthAlert | None:
        evidence = _plateau(self._history, self._limits, self._start.median)
        if evidence is None:
            return None
        return HealthAlert(
            code=CODE,
            severity="warning",
            metric="rewards/margins",
            step=self._first_step + (step - self._first_step) // 2,
            last_step=step,
            count=self._history.rows // 2,
            message=f"margins stand still at {evidence['margin']:.3g} and the loss at"
            f" {evidence['loss']:.4g} over"
            " half of the run, although the learning rate is still up",
            advice="See that the optimizer still steps (fp16 overflows, a frozen adapter after a"
            " resume), then"
            " raise the learning rate or look for pairs that contradict each other.",
            evidence=evidence,
            references=["transformers#14531"],
        )

    def _nothing_moves(self, step: int) -> HealthAlert | None:
        errors = _drift_errors(self._drift)
        if errors is None or errors >= DRIFT_ERRORS:
            return None
        loss, margin, _, _, share, _ = self._history.mean(*DRIFT_PARTS[1:]).tolist()
        late = self._history.mean(0.9, 1.0)[4]
        if min(share, late) < STILL_UP or margin < self._limits.moved_reward:
            return None
        if loss < ARRIVED * self._start.median:
            return None
        first = self._first_step
        return HealthAlert(
            code=CODE,
            severity="warning",
            metric="rewards/margins",
            step=first + round(DRIFT_PARTS[0] * (step - first)),
            last_step=step,
            count=round((1 - DRIFT_PARTS[0]) * self._history.rows),
            message=f"rewards, log-probs and logits have not moved for the last"
            f" {1 - DRIFT_PARTS[0]:.0%} of the run, although the learning rate is up and the loss stands"
            f" at {loss:.4g}: updates are skipped",
            advice="See that the optimizer still steps: a loss scaler that skips every update, gradients"
            " that are cleared before the step, an adapter frozen after a resume.",
            evidence=figures({"largest_drift_errors": errors, "loss": loss, "margin": margin}),
            references=["transformers#14531"],
        )

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


def _bounded(values: Floats) -> Floats:
    """NaN, which is a value that was not logged, stays."""
    return np.clip(values, -LARGEST, LARGEST)


def _drift_errors(history: History) -> float | None:
    """Largest difference between two parts of the run in standard errors; None where too little is logged."""
    start, middle, end = DRIFT_PARTS
    (before, spread_before), (after, spread_after) = (
        _moments(history, *ends) for ends in ((start, middle), (middle, end))
    )
    errors = np.sqrt(
        (spread_before / (middle - start) + spread_after / (end - middle)) / max(history.rows, 1)
    )
    known = np.isfinite(errors) & (errors > 0)
    if np.count_nonzero(known) < DRIFT_METRICS or not known[DRIFTING.index(MOST_SENSITIVE)]:
        return None
    moved, spread = np.abs(after - _moments(history, *BEGIN)[0]), np.sqrt(spread_after)
    if not bool((moved >= CLEARLY * spread)[:REWARDS].any()):
        return None
    return float((np.abs(after - before)[known] / errors[known]).max())


def _moments(history: History, start: float, end: float) -> tuple[Floats, Floats]:
    """Mean and variance of each drifting metric between two shares of the run."""
    part, count = history.mean(start, end), len(DRIFTING)
    return part[:count], np.maximum(part[count:] - np.square(part[:count]), 0.0)


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
    if loss >= start - AT_SCALE * margin:
        return None
    if not (
        would_grow and moved and stands and min(share, before[4]) >= STILL_UP and loss >= ARRIVED * start
    ):
        return None
    return figures({"margin": margin, "growth_at_most": growth, "loss": loss, "accuracy": accuracy})
