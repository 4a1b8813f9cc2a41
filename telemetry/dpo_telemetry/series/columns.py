"""Rows of metrics kept as columns, and the effective series that people see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpo_telemetry.series.growing import Growing

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


MAX_EXPECTED = 64
"""Metrics for which room is made ahead."""


@dataclass(frozen=True)
class Series:
    """One metric over the run: three arrays of the same length, shape (n,)."""

    steps: Ints
    values: Floats
    """May hold NaN and infinities: those were logged, not missing."""
    wall_s: Floats
    """Seconds since the epoch; 0 where the log does not say."""

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Rows:
    """A chunk of rows in the order of their steps, as health rules read it.

    `columns[name]` has shape (n,); where `present[name]` is False the row did not log the metric.
    """

    steps: Ints
    columns: Mapping[str, Floats]
    present: Mapping[str, Mask]

    def __len__(self) -> int:
        return len(self.steps)

    def logged(self, name: str) -> tuple[Ints, Floats]:
        """Steps and values of the rows that logged `name`; two empty arrays when none did."""
        if name not in self.columns:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        mask = self.present[name]
        return self.steps[mask], self.columns[name][mask]


class _Column:
    """Values of one metric with the rows that logged it; while every row does, the rows are not kept."""

    def __init__(self, expected: int) -> None:
        self._values = Growing(np.float64, expected)
        self._rows: Growing[np.int64] | None = None
        self.series: tuple[int, Series] | None = None
        """The effective series at a length of the table."""

    def add(self, rows: Ints, values: Floats) -> None:
        """Values of rows behind all that were added before."""
        n, before = len(values), len(self._values)
        self._values.extend(values, n)
        if self._rows is None and n and not (rows[0] == before and rows[-1] == before + n - 1):
            self._rows = Growing(np.int64)
            self._rows.extend(np.arange(before), before)
        if self._rows is not None:
            self._rows.extend(rows, n)

    def add_one(self, row: int, value: float) -> None:
        """The value of one row behind all that were added before."""
        if self._rows is None and row != len(self._values):
            self._rows = Growing(np.int64)
            self._rows.extend(np.arange(len(self._values)), len(self._values))
        self._values.append(value)
        if self._rows is not None:
            self._rows.append(row)

    def values(self) -> Floats:
        """All values, shape (k,)."""
        return self._values.values()

    def last(self) -> float:
        """The value that was added last."""
        return float(self._values.last())

    def fills(self, n: int) -> bool:
        """Whether each of the first `n` rows has a value."""
        return self._rows is None and len(self._values) == n

    def rows(self) -> Ints:
        """The rows of the values, shape (k,), rising."""
        return np.arange(len(self._values)) if self._rows is None else self._rows.values()

    def first_from(self, row: int) -> int:
        """Index of the first value at `row` or behind it."""
        return (
            min(row, len(self._values))
            if self._rows is None
            else int(np.searchsorted(self._rows.values(), row))
        )


class Table:
    """Rows of one kind (training or evaluation), appended as they are read."""

    def __init__(self, expected: int = 0) -> None:
        """`expected` rows have room from the start."""
        self._expected = expected
        self._steps = Growing(np.int64, expected)
        self._attempts = Growing(np.int64, expected)
        self._wall_s = Growing(np.float64, expected)
        self._columns: dict[str, _Column] = {}
        self._order: tuple[int, Ints, Ints] | None = None
        self._last_step: int | None = None
        self._out_of_order = 0

    def __len__(self) -> int:
        return len(self._steps)

    def append(
        self, step: int, metrics: Iterable[tuple[str, float]], *, attempt: int = 1, wall_s: float = 0.0
    ) -> None:
        """Add one row."""
        row = len(self._steps)
        if self._last_step is None or step > self._last_step:
            self._last_step = step
        else:
            self._out_of_order += 1
        self._steps.append(step)
        self._attempts.append(attempt)
        self._wall_s.append(wall_s)
        for name, value in metrics:
            self._column(name).add_one(row, value)

    def extend(
        self,
        steps: Ints,
        columns: Mapping[str, tuple[Ints, Floats]],
        *,
        attempts: Ints,
        wall_s: Floats | float = 0.0,
    ) -> None:
        """Add many rows at once.

        Args:
            steps: step of each row, shape (n,).
            columns: by metric, which of these rows logged it (indices from 0, rising) and its values.
            attempts: attempt of each row, shape (n,).
            wall_s: wall clock of each, shape (n,), or of all of them, seconds since the epoch; 0 where the log
                does not say.
        """
        n, first = len(steps), len(self._steps)
        if n == 0:
            return
        before = int(steps[0]) - 1 if self._last_step is None else self._last_step
        reached = np.maximum.accumulate(np.append(np.int64(before), steps))
        self._out_of_order += int((steps <= reached[:-1]).sum())
        self._last_step = int(reached[-1])
        self._steps.extend(steps, n)
        self._attempts.extend(attempts, n)
        self._wall_s.extend(wall_s, n)
        for name, (rows, values) in columns.items():
            self._column(name).add(rows + first, values)

    def names(self) -> list[str]:
        """Metrics that any row logged, in the order of their first appearance."""
        return list(self._columns)

    def last_step(self) -> int | None:
        """Largest step of any row."""
        return self._last_step

    def out_of_order(self) -> int:
        """Rows that were appended at a step that an earlier row had reached."""
        return self._out_of_order

    def last(self, name: str) -> float | None:
        """Newest effective value of one metric; costs nothing while steps only grow."""
        column = self._columns.get(name)
        if column is None:
            return None
        return column.last() if not self._out_of_order else float(self.effective(name).values[-1])

    def effective_rows(self) -> Ints:
        """Indices of the rows people see, by step: for each step the newest attempt that reached it."""
        return self._sorted()[1]

    def superseded_rows(self) -> Ints:
        """Indices of the rows that a newer attempt, or a repeated line, replaced."""
        return self._sorted()[2]

    def effective(self, name: str) -> Series:
        """The effective series of one metric; the same object until rows are added.

        Costs nothing while steps only grow and each row has the metric: the arrays are those of the table.
        """
        column = self._columns.get(name)
        if column is None:
            return Series(np.empty(0, np.int64), np.empty(0), np.empty(0))
        if column.series is None or column.series[0] != len(self):
            column.series = len(self), self._effective(column)
        return column.series[1]

    def superseded(self, name: str) -> Series:
        """The replaced values of one metric, kept for whoever wants to see them."""
        return self._series(name, self.superseded_rows())

    def attempts(self) -> Ints:
        """Attempt of each row, shape (n,)."""
        return self._attempts.values()

    def rows(self, indices: Ints) -> Rows:
        """Rows by index, aligned over all metrics."""
        columns: dict[str, Floats] = {}
        present: dict[str, Mask] = {}
        # Of a long run a second copy of every column is what memory would not hold.
        all_rows = len(indices) == len(self) and bool((indices == np.arange(len(self))).all())
        for name, column in self._columns.items():
            values, mask = self._aligned(column)
            columns[name], present[name] = (values, mask) if all_rows else (values[indices], mask[indices])
        steps = self._steps.values()
        return Rows(steps if all_rows else steps[indices], columns, present)

    def wall_s(self, indices: Ints) -> Floats:
        """Wall clock of rows by index, seconds since the epoch; 0 where the log does not say."""
        return self._wall_s.values()[indices]

    def attempt_starts(self) -> list[int]:
        """Smallest step of each attempt but the first, in the order of the attempts."""
        attempts, steps = self._attempts.values(), self._steps.values()
        if not len(attempts) or attempts.min() == attempts.max():
            return []
        numbers = np.unique(attempts)
        return [int(steps[attempts == number].min()) for number in numbers[1:].tolist()]

    def tail(self, start: int) -> Rows:
        """The rows from index `start` on, in the order they were appended.

        Costs what the tail holds, not what the table holds.
        """
        n = len(self._steps) - start
        columns: dict[str, Floats] = {}
        present: dict[str, Mask] = {}
        for name, column in self._columns.items():
            first = column.first_from(start)
            found = column.values()[first:]
            if column.fills(len(self._steps)):
                columns[name], present[name] = found, np.ones(n, np.bool_)
            elif len(found):
                values, mask = np.full(n, np.nan), np.zeros(n, np.bool_)
                rows = column.rows()[first:] - start
                values[rows], mask[rows] = found, True
                columns[name], present[name] = values, mask
        return Rows(self._steps.values()[start:], columns, present)

    def _column(self, name: str) -> _Column:
        column = self._columns.get(name)
        if column is None:
            # Metrics that come late are of few rows, as are those of evaluations.
            column = self._columns[name] = _Column(0 if len(self._columns) > MAX_EXPECTED else self._expected)
        return column

    def _aligned(self, column: _Column) -> tuple[Floats, Mask]:
        n = len(self._steps)
        if column.fills(n):
            return column.values(), np.ones(n, np.bool_)
        values, mask = np.full(n, np.nan), np.zeros(n, np.bool_)
        rows = column.rows()
        values[rows], mask[rows] = column.values(), True
        return values, mask

    def _effective(self, column: _Column) -> Series:
        if self._out_of_order:
            return self._picked(column, self.effective_rows())
        steps, wall_s = self._steps.values(), self._wall_s.values()
        if column.fills(len(self)):
            return Series(steps, column.values(), wall_s)
        rows = column.rows()
        return Series(steps[rows], column.values(), wall_s[rows])

    def _series(self, name: str, indices: Ints) -> Series:
        column = self._columns.get(name)
        if column is None or not len(indices):
            return Series(np.empty(0, np.int64), np.empty(0), np.empty(0))
        return self._picked(column, indices)

    def _picked(self, column: _Column, indices: Ints) -> Series:
        values, mask = self._aligned(column)
        kept = indices[mask[indices]]
        return Series(self._steps.values()[kept], values[kept], self._wall_s.values()[kept])

    def _sorted(self) -> tuple[int, Ints, Ints]:
        if self._order is None or self._order[0] != len(self._steps):
            self._order = self._sort()
        return self._order

    def _sort(self) -> tuple[int, Ints, Ints]:
        n = len(self._steps)
        steps, rows = self._steps.values(), np.arange(n)
        if not self._out_of_order:
            return n, rows, np.empty(0, np.int64)
        known = self._order
        if known is not None and known[0] < n and len(known[1]):
            # A resumed run that goes on only adds rows behind; sorting a long one each time would cost its length.
            reached = np.append(steps[known[1][-1]], steps[known[0] :])
            if bool((np.diff(reached) > 0).all()):
                return n, np.append(known[1], rows[known[0] :]), known[2]
        order = np.lexsort((rows, self._attempts.values(), steps))
        last_of_step = np.append(np.diff(steps[order]) > 0, True)
        return n, order[last_of_step], np.sort(order[~last_of_step])


def joined(pieces: list[tuple[Ints, Floats]]) -> tuple[Ints, Floats]:
    """Pieces of one column, each as rows and values, in the order of its rows; of a row's values the last counts."""
    if len(pieces) == 1:
        return pieces[0]
    rows = np.concatenate([rows for rows, _ in pieces])
    values = np.concatenate([values for _, values in pieces])
    order = np.argsort(rows, kind="stable")
    rows, values = rows[order], values[order]
    last = np.append(rows[1:] != rows[:-1], True)
    return rows[last], values[last]


class SeriesStore:
    """All metrics of a run: training rows, and evaluation rows whose names carry `eval_`."""

    def __init__(self, expected_steps: int = 0) -> None:
        """`expected_steps` training rows have room from the start."""
        self.train = Table(expected_steps)
        self.eval = Table()

    def names(self) -> list[str]:
        """Every metric of the run."""
        return self.train.names() + [name for name in self.eval.names() if name not in self.train.names()]

    def effective(self, name: str) -> Series:
        """The series people see."""
        return self._table(name).effective(name)

    def superseded(self, name: str) -> Series:
        """Values that a newer attempt replaced."""
        return self._table(name).superseded(name)

    def last(self, name: str) -> float | None:
        """Newest effective value; None when the metric was never logged."""
        return self._table(name).last(name)

    def _table(self, name: str) -> Table:
        return self.train if name in self.train.names() else self.eval
