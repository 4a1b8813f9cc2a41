"""bf16_rounding: log-probs were rounded to bf16 before they were subtracted.

bf16 keeps 8 bits of mantissa, so its grid at |x| in [2^k, 2^(k+1)) is 2^(k-7): 0.0039 near 0.69,
4 at 512 to 1,024. A margin is beta times a difference of log-probs, so with rounded log-probs
nothing below beta times the grid can be seen; what is logged as a margin then is noise of that
size around 0, which is why means over some rows are held against it: four roundings, each uniform
over one step, leave a margin with a standard deviation of 1/sqrt(3) steps times beta. A margin once
seen above the grid stays seen, so that the severity changes once at most while the grid is the same.
The grid is read off the log: the largest power of two of which all logged log-probs are multiples
(an average over n rows makes it n times finer). A log that prints four significant digits
(transformers 5 on stdout) has a grid of its own, which must not pass for that of bf16.
"""

from __future__ import annotations

import math

import numpy as np

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import PREFERENCE
from dpo_telemetry.health.rule import Context, Rule, Sighting
from dpo_telemetry.health.windows import First, Trailing, aligned, figures
from dpo_telemetry.series.columns import Floats, Rows

CODE = "bf16_rounding"

LOGPS = ("logps/chosen", "logps/rejected")
MIN_VALUES = 2
"""One value alone can be a round number by chance."""
MARGIN_ROWS = 10
"""Rows over whose mean a margin is told from the noise of rounding."""
FEW_ROWS = 5
"""First rows whose mean tells as well; one over fewer has to be as many of its standard errors above 0."""
FINEST = 2.0**-16
PROBED_VALUES = 64
"""Values that show most logs to lie on no grid before all of them are looked at."""
PRINTED_DIGITS = 4
MAX_CHANCE = 1e-3
"""Odds at which printed digits alone would put all values on the grid; less likely is no chance."""


class Bf16Rounding(Rule):
    """Finds the grid that all log-probs lie on."""

    KINDS = PREFERENCE
    NEEDS = LOGPS
    SEVERITIES = ("info", "warning")

    def __init__(self, context: Context) -> None:
        self._min_grid = context.thresholds.bf16_min_grid
        self._beta = context.assumed_beta
        self._grid: float | None = None
        self._values = 0
        self._largest = 0.0
        self._smallest = math.inf
        self._printed = True
        self._margin, self._first = Trailing(MARGIN_ROWS), First(MARGIN_ROWS)
        self._largest_mean = 0.0
        self._seen = Sighting()

    def feed(self, rows: Rows) -> None:
        """Look at the next rows."""
        for name in LOGPS:
            steps, values = rows.logged(name)
            kept = np.isfinite(values) & (values != 0)
            if kept.any():
                self._narrow(values[kept])
                if name == LOGPS[0]:
                    self._seen.add(steps[kept])
        _, (margins,) = aligned(rows, "rewards/margins")
        means = np.abs(self._margin.feed(margins))
        self._first.feed(margins)
        self._largest_mean = max(self._largest_mean, float(means[np.isfinite(means)].max(initial=0.0)))

    def alerts(self) -> list[HealthAlert]:
        """At most one alert: a warning where the grid hides the margins, otherwise for information."""
        if self._grid is None or self._values < MIN_VALUES:
            return []
        # A few values can lie on a coarser grid by chance than bf16 has at their magnitude.
        grid = min(self._grid, 2.0 ** (math.floor(math.log2(self._largest)) - 7))
        if grid < self._min_grid or self._chance(grid) > MAX_CHANCE:
            return []
        smallest = self._beta * grid
        margin = max(self._largest_mean, self._largest_first_mean())
        hides = smallest > margin
        return [
            HealthAlert(
                code=CODE,
                severity="warning" if hides else "info",
                metric=LOGPS[0],
                step=self._seen.first_step,
                last_step=self._seen.last_step,
                count=self._seen.count,
                message=f"all log-probs are multiples of {grid:g}: they were rounded to bf16, and no"
                " margin below"
                f" {smallest:.3g} (beta {self._beta:g} x {grid:g}) can be seen",
                advice="Sum log-probs in fp32 outside the wrapped model, whatever the compute dtype.",
                evidence=figures({"grid": grid, "smallest_margin": smallest, "margin": margin}),
                references=["alignment-handbook#115"],
            )
        ]

    def _narrow(self, values: Floats) -> None:
        grid = self._grid if self._grid is not None else 2.0 ** math.floor(math.log2(np.abs(values).max()))
        for probed in (values[:PROBED_VALUES], values):
            while grid >= FINEST and not bool((np.remainder(probed, grid) == 0).all()):
                grid /= 2
        self._grid = grid
        self._values += len(values)
        self._largest = max(self._largest, float(np.abs(values).max()))
        self._smallest = min(self._smallest, float(np.abs(values).min()))
        self._printed = self._printed and _all_printed(values[:PROBED_VALUES]) and _all_printed(values)

    def _largest_first_mean(self) -> float:
        """Largest mean of the first rows, those over fewer than `FEW_ROWS` shrunk as their error is wider."""
        margins = np.array(self._first.values)
        rows = np.arange(1, len(margins) + 1)
        means = np.abs(np.add.accumulate(margins) / rows) * np.sqrt(np.minimum(rows / FEW_ROWS, 1.0))
        return float(means.max(initial=0.0))

    def _chance(self, grid: float) -> float:
        """How likely printed digits are to be multiples of `grid`; 0 for values in full precision."""
        if not self._printed:
            return 0.0
        resolution = 10.0 ** (math.floor(math.log10(self._smallest)) + 1 - PRINTED_DIGITS)
        return min(1.0, resolution / grid) ** self._values


def _all_printed(values: Floats) -> bool:
    """Whether no value has more than `PRINTED_DIGITS` significant digits."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * 10.0 ** (PRINTED_DIGITS - 1 - np.floor(np.log10(np.abs(values))))
        return bool((np.abs(scaled - np.round(scaled)) < 1e-6).all())
