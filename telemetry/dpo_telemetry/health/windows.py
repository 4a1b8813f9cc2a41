"""What rules remember of a run: windows, first values and latches, of bounded size.

All of them give the same answer however the rows are cut into chunks: sums run from value to
value in order (`np.add.accumulate` adds in sequence), and nothing is decided at a chunk's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from dpo_telemetry.series.columns import Floats, Ints, Mask, Rows

LARGEST = 1e4
"""Values beyond are cut to it: one that is absurd must not drown the sums of all that follow."""
SHORT_ROWS = 10
"""Rows of a window over rows that sum up several steps."""
BLOCK_ROWS = 1 << 15
"""Rows of a history that are summed at a time, so that a long log needs no second copy of itself."""
CHECKPOINTS = 256
"""Rows of a run's history that are kept; behind them every other one is dropped."""
ABSURD = 1e12
"""Nothing that a rule reckons with is larger, so that no sum or product overflows."""
LEAST_STRIDE = 4
"""Rows between two milestones at least."""


def aligned(rows: Rows, *names: str) -> tuple[Ints, list[Floats]]:
    """Steps and values of the rows that logged every one of `names` as a finite number, shape (n,).

    Values beyond `ABSURD` are cut to it.
    """
    if not all(name in rows.columns for name in names):
        return np.empty(0, np.int64), [np.empty(0) for _ in names]
    mask = np.ones(len(rows), np.bool_)
    for name in names:
        mask &= rows.present[name] & np.isfinite(rows.columns[name])
    if mask.all():
        return rows.steps, [_cut(rows.columns[name], ABSURD) for name in names]
    return rows.steps[mask], [_cut(rows.columns[name][mask], ABSURD) for name in names]


def _cut(values: Floats, bound: float) -> Floats:
    if len(values) == 0 or (values.max() <= bound and values.min() >= -bound):
        return values
    cut: Floats = np.minimum(np.maximum(values, -bound), bound)
    return cut


def beside(rows: Rows, name: str, *needed: str) -> Floats:
    """Values of `name` in the rows that `aligned` gives for `needed`; NaN where it is not logged."""
    mask = np.ones(len(rows), np.bool_)
    for other in needed:
        mask &= rows.present[other] & np.isfinite(rows.columns[other])
    if name not in rows.columns:
        return np.full(np.count_nonzero(mask), np.nan)
    values = np.where(rows.present[name], rows.columns[name], np.nan)[mask]
    return np.where(np.isfinite(values), values, np.nan)


class _Sums:
    """Running sums: what windows of up to `width` values are differences of."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._kept = np.zeros(1)

    def feed(self, values: Floats) -> Floats:
        """Sums up to each value, shape (k + n,), behind the k sums that windows reach back to."""
        carried = np.concatenate([self._kept[-1:], values])
        sums = np.concatenate([self._kept[:-1], np.add.accumulate(carried)])
        self._kept = sums[-(self._width + 1) :].copy()
        return sums


def _means(sums: Floats, count: int, width: int) -> Floats:
    """Mean of the last `width` values at each of the last `count`; NaN where there are fewer."""
    at = len(sums) - count
    first = max(0, width - at)
    means = np.full(count, np.nan)
    if first < count:
        means[first:] = (sums[at + first :] - sums[at + first - width : len(sums) - width]) / width
    return means


class Trailing:
    """Mean of the last `width` values, at every value."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._sums = _Sums(width)

    def feed(self, values: Floats) -> Floats:
        """The mean at each value, shape (n,); NaN until `width` values are there."""
        if len(values) == 0:
            return np.empty(0)
        return _means(self._sums.feed(_cut(values, LARGEST)), len(values), self._width)


class Spread:
    """Mean of the last values and its standard error, at every value.

    How many values a window holds is said row by row (`Pace`): a trainer that logs every tenth
    step writes means of ten steps, and few such rows hold what many single ones would.
    """

    def __init__(self, width: int) -> None:
        self._sums, self._squares = _Sums(width), _Sums(width)

    def feed(self, values: Floats, widths: Ints) -> tuple[Floats, Floats]:
        """Mean and standard error of the mean, each of shape (n,); NaN until the window is full.

        Args:
            values: shape (n,).
            widths: rows of each row's window, up to the greatest width, shape (n,).
        """
        values = _cut(values, LARGEST)
        sums, squares = self._sums.feed(values), self._squares.feed(np.square(values))
        mean = _picked(sums, widths)
        variance = np.maximum(_picked(squares, widths) - np.square(mean), 0.0)
        return mean, np.sqrt(variance / widths)


class Mean:
    """The mean alone, of the rows that `Spread` would take."""

    def __init__(self, width: int) -> None:
        self._sums = _Sums(width)

    def feed(self, values: Floats, widths: Ints) -> Floats:
        """Mean at each value, shape (n,); NaN until the window is full."""
        return _picked(self._sums.feed(_cut(values, LARGEST)), widths)


def _picked(sums: Floats, widths: Ints) -> Floats:
    count = len(widths)
    if count == 0 or widths.min() == widths.max():
        return _means(sums, count, int(widths[0]) if count else 1)
    at = np.arange(len(sums) - count, len(sums))
    start = at - widths
    means = (sums[at] - sums[np.maximum(start, 0)]) / widths
    return np.where(start >= 0, means, np.nan)


class Pace:
    """Rows that a window needs to hold `width` steps, where each row may sum up several."""

    def __init__(self, width: int, least: int = SHORT_ROWS) -> None:
        self._width, self._least = width, least
        self._first_step: int | None = None
        self._rows = 0

    def feed(self, steps: Ints) -> Ints:
        """Look at rows in order, shape (n,): the rows of each row's window, from `least` to `width`."""
        if self._first_step is None and len(steps):
            self._first_step = int(steps[0])
        index = np.maximum(self._rows + np.arange(len(steps)), 1)
        self._rows += len(steps)
        steps_a_row = np.maximum((steps - (self._first_step or 0)) / index, 1.0)
        rows = np.ceil(self._width / steps_a_row).astype(np.int64)
        return np.maximum(rows, min(self._width, self._least))


class First:
    """The first `count` values."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._median: float | None = None
        self.values: list[float] = []

    def feed(self, values: Floats) -> None:
        """Take what is still wanted."""
        wanted = self._count - len(self.values)
        if wanted > 0:
            self.values += values[:wanted].tolist()
            self._median = None

    @property
    def full(self) -> bool:
        """Whether all values are there."""
        return len(self.values) == self._count

    @property
    def median(self) -> float:
        """Their median; NaN while there is none."""
        if self._median is None:
            self._median = float(np.median(self.values)) if self.values else float("nan")
        return self._median


class Settled:
    """Rows since the learning rate last rose to a new height: while it rises, a run warms up."""

    def __init__(self) -> None:
        self._highest = 0.0
        self._rows = 0

    def feed(self, rates: Floats) -> Ints:
        """Rows behind the last rise at each row, shape (n,); NaN is a rate that was not logged."""
        count = len(rates)
        known = np.concatenate([[self._highest], np.nan_to_num(rates, nan=0.0, posinf=0.0, neginf=0.0)])
        highest = np.maximum.accumulate(known)
        at = np.arange(count)
        last_rise = np.maximum.accumulate(np.where(known[1:] > highest[:-1], at, -1))
        settled = np.where(last_rise < 0, self._rows + at + 1, at - last_rise + 1)
        if count:
            self._highest, self._rows = float(highest[-1]), int(settled[-1])
        return settled


class History:
    """Running sums of some columns over the whole run, kept at up to `CHECKPOINTS` rows of even distance."""

    def __init__(self, columns: int) -> None:
        self._sums = np.zeros((1, columns))
        self._kept = np.zeros((1, columns))
        self._rows = 0
        self._stride = 1

    def feed(self, *columns: Floats) -> None:
        """Add rows; each column has shape (n,)."""
        for start in range(0, len(columns[0]), BLOCK_ROWS):
            self._feed(np.stack([column[start : start + BLOCK_ROWS] for column in columns], axis=1))

    def _feed(self, values: Floats) -> None:
        sums = np.add.accumulate(np.concatenate([self._sums, values]), axis=0)[1:]
        index = self._rows + np.arange(1, len(values) + 1)
        self._rows += len(values)
        while self._rows // self._stride > CHECKPOINTS:
            self._stride *= 2
            self._kept = self._kept[::2]
        self._kept = np.concatenate([self._kept, sums[index % self._stride == 0]])
        self._sums = sums[-1:].copy()

    @property
    def rows(self) -> int:
        """Rows up to the newest checkpoint."""
        return (len(self._kept) - 1) * self._stride

    def mean(self, start: float, end: float) -> Floats:
        """Mean of each column between two shares of the run, shape (columns,)."""
        last = len(self._kept) - 1
        first, until = round(start * last), round(end * last)
        means: Floats = (self._kept[until] - self._kept[first]) / ((until - first) * self._stride)
        return means


class Milestones:
    """Row counts at which a rule that looks at the whole run looks again: each a sixteenth beyond the one before.

    They are the same however the rows are cut into chunks, so what is seen at them is too.
    """

    def __init__(self, first: int) -> None:
        self._next, self._rows = first, 0

    def cut(self, rows: int) -> Iterator[tuple[slice, bool]]:
        """Slices of the next `rows` rows, and whether a milestone is at the end of each."""
        start = 0
        while start < rows:
            end = min(rows, self._next - self._rows + start)
            self._rows += end - start
            due = self._rows == self._next
            if due:
                self._next += max(LEAST_STRIDE, self._next // 16)
            yield slice(start, end), due
            start = end


class Latch:
    """Raised by a row whose `on` holds, lowered only by one whose `off` holds.

    Between the two thresholds it stays as it is, so that a value near one of them does not make
    an alert come and go.
    """

    def __init__(self) -> None:
        self.active = False
        self.first_step = 0
        """Step at which it was raised."""
        self.last_step = 0
        """Newest step whose `on` holds."""
        self.count = 0
        """Rows whose `on` held since it was raised."""
        self.evidence: dict[str, float] = {}
        """Figures of the newest row whose `on` holds."""

    def feed(self, steps: Ints, on: Mask, off: Mask | None, evidence: Mapping[str, Floats]) -> None:
        """Look at rows in order; all arrays have shape (n,). Without `off` it stays raised."""
        raised = np.flatnonzero(on)
        if off is not None:
            lowered = np.flatnonzero(off & ~on)
            if len(lowered):
                self.active = False
                raised = raised[raised > lowered[-1]]
        if len(raised) == 0:
            return
        if not self.active:
            self.active, self.first_step, self.count = True, int(steps[raised[0]]), 0
        self.count += len(raised)
        self.last_step = int(steps[raised[-1]])
        self.evidence = figures({name: values[raised[-1]] for name, values in evidence.items()})


def figures(values: Mapping[str, float]) -> dict[str, float]:
    """Evidence to show: finite numbers of six digits."""
    return {name: float(f"{value:.6g}") for name, value in values.items() if np.isfinite(value)}
