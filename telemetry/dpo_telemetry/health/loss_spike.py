"""loss_spike: the loss jumps far above its level, more than once in a short while.

A single pair far on the wrong side costs -log sigmoid(margin), about -margin: one row may stand
out, above all in small batches, and is no symptom. Several rows out of a few are: a learning
rate too high, a batch of broken samples, a resume with a fresh optimizer. A row stands out when
it lies above the median of the rows before it by many times their median deviation (1.4826 x MAD
estimates the standard deviation of normal noise), by a factor, above all of those rows, and
above where the run started, so that the noise of a loss near 0 does not count; and it is part
of the noise where rows were as high all along, as with one pair a batch. A single update
that throws the policy away shows as well: by log-probs that become a multiple of themselves from
one handful of rows to the next while the mean loss climbs back above its start, or by losses whose
mean climbs above the start and which scatter by a multiple of what they did, since a policy that is
far off is far off in both directions.
"""

from __future__ import annotations

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import SUPERVISED
from dpo_telemetry.health.rule import Context, Rule
from dpo_telemetry.health.windows import LARGEST, First, Latch, Pace, Trailing, aligned, figures
from dpo_telemetry.series.columns import Floats, Ints, Rows

CODE = "loss_spike"

BLOCK_ROWS = 16
"""Rows whose median and deviation the next block is held against."""
MAD_TO_DEVIATION = 1.4826
THROWN_ROWS = 8
"""Rows before and behind a jump of the log-probs."""
THROWN_LOGPS = 1.8
"""Factor by which log-probs jump when an update throws the policy away."""
THROWN_ERRORS = 5
"""Standard errors by which log-probs have to jump: those of single pairs differ as their lengths do."""
THROWN_LOSS = 1.3
"""Factor by which the mean loss climbs with it."""
SCATTER_ROWS, SCATTER_BEFORE_ROWS = 16, 32
"""Rows whose scatter is held against that of the rows before them."""
SCATTER_FACTOR = 2.5
"""Factor by which the standard deviation of losses grows when a policy is thrown away."""
SCATTER_HIGH_ROWS = 4
"""Rows among them that have to be high, so that one or two outliers do not make the scatter."""
SCATTER_LOSS, SCATTER_START = 1.4, 1.4
"""Factors by which their mean has to climb, above the rows before and above the start of the run."""
LEVEL_ROWS = 24
"""Rows that have to precede a jump, so that there is a level to jump from."""
SHARPNESS = 2.0
"""Factor by which a spike stands above one of the rows just before it; a slow climb has none."""
HIGHEST_FACTOR = 1.5
"""Factor by which a spike stands above the highest of the rows it is held against."""
ROWS_BEFORE = 8
USUAL_SHARE = 0.05
"""Share of rows this high above which they belong to the noise of the run, as with one pair a batch."""
NEAR_ROWS = 16
"""Rows among which spikes have to gather."""
LEAST_SPIKES = 2
"""Rows of them at least, where each sums up several steps."""


class LossSpike(Rule):
    """Holds each block of losses against the one before it."""

    KINDS = SUPERVISED
    NEEDS = ("loss",)
    SEVERITIES = ("warning",)

    def __init__(self, context: Context) -> None:
        limits = context.thresholds
        self._deviations, self._factor = limits.spike_deviations, limits.spike_factor
        self._pace = Pace(limits.spike_rows, LEAST_SPIKES)
        self._rest = np.empty(0)
        self._high, self._high_rows, self._near_high = 0.0, 0, Trailing(NEAR_ROWS)
        self._before = np.full(ROWS_BEFORE, np.inf)
        self._limit = self._start = self._level = float("inf")
        self._near = Trailing(NEAR_ROWS)
        self._latch = Latch()
        self._highest, self._spikes = 0.0, 0
        self._thrown = Latch()
        self._short, self._double = (
            {name: Trailing(rows) for name in ("loss", "logps", "squares")}
            for rows in (THROWN_ROWS, 2 * THROWN_ROWS)
        )
        self._scattered = Latch()
        rows = SCATTER_ROWS + SCATTER_BEFORE_ROWS
        self._scatter = [[Trailing(width) for width in (SCATTER_ROWS, rows)] for _ in range(2)]
        self._begin, self._far = First(THROWN_ROWS), Trailing(SCATTER_ROWS)
        self._logged = 0
        self._first = First(THROWN_ROWS)

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        steps, (loss,) = aligned(rows, *self.NEEDS)
        if len(loss) == 0:
            return
        limits, levels = self._limits(loss)
        spiked = (loss > limits) & (loss > SHARPNESS * self._least_before(loss))
        spiked &= self._rate_before(loss) <= USUAL_SHARE
        share = self._near.feed(spiked.astype(np.float64))
        if spiked.any():
            self._highest = max(self._highest, float(loss[spiked].max()))
            self._spikes += int(np.count_nonzero(spiked))
        enough = share * NEAR_ROWS >= self._pace.feed(steps)
        self._latch.feed(steps, spiked & enough, None, {"level": levels, "loss": loss})
        self._watch_scatter(steps, loss)
        self._watch_jumps(rows)

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        latches = (self._latch, self._thrown, self._scattered)
        seen = next((latch for latch in latches if latch.active), None)
        if seen is None:
            return []
        if seen is self._scattered:
            text = (
                f"the loss jumps from {seen.evidence['level']:.3g} to {seen.evidence['loss']:.3g} on"
                f" average and scatters {seen.evidence['scatter_factor']:.1f} times as far"
            )
        elif seen is self._thrown:
            text = (
                f"the loss jumps from {seen.evidence['level']:.3g} to {seen.evidence['loss']:.3g} on"
                " average, and"
                f" log-probs with it from {seen.evidence['logps_before']:.4g} to {seen.evidence['logps']:.4g}"
            )
        else:
            text = (
                f"the loss jumps in {self._spikes} rows, up to {self._highest:.3g} from a level of"
                f" {seen.evidence['level']:.3g}"
            )
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="loss",
                step=seen.first_step,
                last_step=seen.last_step,
                count=max(seen.count, self._spikes),
                message=text,
                advice="Lower the learning rate or lengthen the warm-up, clip gradients, look at the"
                " samples of those"
                " steps; after a resume see that the optimizer's state came back.",
                evidence={**seen.evidence, **figures({"highest": self._highest, "rows": self._spikes})},
                references=["arXiv 2204.02311", "trl#1236"],
            )
        ]

    def _rate_before(self, loss: Floats) -> Floats:
        """Share of all rows before the last `NEAR_ROWS` that were as high: noise has spikes all along."""
        high = (loss > self._factor * self._start).astype(np.float64)
        counts = self._high + np.add.accumulate(high)
        rows = self._high_rows + np.arange(1, len(loss) + 1)
        self._high, self._high_rows = float(counts[-1]), int(rows[-1])
        near = np.nan_to_num(self._near_high.feed(high)) * NEAR_ROWS
        share: Floats = (counts - near) / np.maximum(rows - NEAR_ROWS, 1)
        return share

    def _least_before(self, loss: Floats) -> Floats:
        """The least of the rows just before each row."""
        values = np.concatenate([self._before, loss])
        self._before = values[-ROWS_BEFORE:].copy()
        shifted = [values[back : back + len(loss)] for back in range(ROWS_BEFORE)]
        least: Floats = np.minimum.reduce(shifted)
        return least

    def _watch_scatter(self, steps: Ints, loss: Floats) -> None:
        """Compare mean and standard deviation of the last rows with those of the rows before them."""
        self._begin.feed(loss)
        share = SCATTER_ROWS / (SCATTER_ROWS + SCATTER_BEFORE_ROWS)
        moments = []
        for values, (short, whole) in zip((loss, np.square(loss)), self._scatter, strict=True):
            after = short.feed(values)
            moments.append((after, (whole.feed(values) - share * after) / (1 - share)))
        (after, before), (square_after, square_before) = moments
        spread = np.sqrt(np.maximum(square_after - np.square(after), 0.0))
        spread_before = np.sqrt(np.maximum(square_before - np.square(before), 0.0))
        on = (after >= SCATTER_LOSS * before) & (after >= SCATTER_START * self._begin.median)
        on &= (spread >= SCATTER_FACTOR * spread_before) & (spread > 0)
        high = loss > np.nan_to_num(before + SCATTER_FACTOR * spread_before, nan=np.inf)
        on &= self._far.feed(high.astype(np.float64)) >= SCATTER_HIGH_ROWS / SCATTER_ROWS
        factor = spread / np.maximum(spread_before, np.finfo(np.float64).tiny)
        self._scattered.feed(steps, on, None, {"level": before, "loss": after, "scatter_factor": factor})

    def _watch_jumps(self, rows: Rows) -> None:
        """Compare the last rows' loss and log-probs with those of the rows before them."""
        steps, (loss, logps) = aligned(rows, "loss", "logps/chosen")
        if len(steps) == 0:
            return
        self._first.feed(loss)
        logps = np.maximum(logps, -LARGEST)
        values = {"loss": loss, "logps": logps, "squares": np.square(logps / LARGEST)}
        after = {name: self._short[name].feed(column) for name, column in values.items()}
        before = {name: 2 * self._double[name].feed(column) - after[name] for name, column in values.items()}
        level = self._logged + np.arange(1, len(steps) + 1) >= LEVEL_ROWS
        self._logged += len(steps)
        variances = [
            np.maximum(part["squares"] * LARGEST**2 - np.square(part["logps"]), 0.0)
            for part in (before, after)
        ]
        errors = np.sqrt(sum(variances) / (THROWN_ROWS - 1))
        on = level & (after["logps"] <= THROWN_LOGPS * before["logps"])
        on &= before["logps"] - after["logps"] >= THROWN_ERRORS * errors
        on &= (after["loss"] >= THROWN_LOSS * before["loss"]) & (after["loss"] >= self._first.median)
        evidence = {"level": before["loss"], "loss": after["loss"], "logps_before": before["logps"]}
        self._thrown.feed(steps, on, None, {**evidence, "logps": after["logps"]})

    def _limits(self, loss: Floats) -> tuple[Floats, Floats]:
        """What each loss must not exceed, and the level that it is held against."""
        values = np.concatenate([self._rest, loss])
        blocks = len(values) // BLOCK_ROWS
        whole = values[: blocks * BLOCK_ROWS].reshape(blocks, BLOCK_ROWS)
        median = np.median(whole, axis=1)
        deviation = MAD_TO_DEVIATION * np.median(np.abs(whole - median[:, None]), axis=1)
        if not np.isfinite(self._start) and blocks:
            self._start = float(median[0])
        limit = np.maximum(median + self._deviations * deviation, self._factor * median)
        limit = np.maximum(limit, self._factor * self._start)
        limit = np.maximum(limit, HIGHEST_FACTOR * whole.max(axis=1, initial=0.0))
        limits, levels = np.append(self._limit, limit), np.append(self._level, median)
        of_block = (np.arange(len(values)) // BLOCK_ROWS)[len(self._rest) :]
        self._rest = values[blocks * BLOCK_ROWS :].copy()
        self._limit, self._level = float(limits[-1]), float(levels[-1])
        return limits[of_block], levels[of_block]
