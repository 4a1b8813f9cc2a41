"""Rows of metrics kept as columns, and the effective series that people see."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


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


@dataclass
class _Column:
    rows: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


class Table:
    """Rows of one kind (training or evaluation), appended as they are read."""

    def __init__(self) -> None:
        self._steps: array[int] = array("q")
        self._attempts: array[int] = array("q")
        self._wall_s: array[float] = array("d")
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
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column()
            column.rows.append(row)
            column.values.append(value)

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
        self._steps.frombytes(np.ascontiguousarray(steps, np.int64).tobytes())
        self._attempts.frombytes(np.ascontiguousarray(attempts, np.int64).tobytes())
        self._wall_s.frombytes(np.full(n, wall_s, np.float64).tobytes())
        for name, (rows, values) in columns.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column()
            column.rows.frombytes((rows.astype(np.int64) + first).tobytes())
            column.values.frombytes(np.ascontiguousarray(values, np.float64).tobytes())

    def names(self) -> list[str]:
        """Metrics that any row logged, in the order of their first appearance."""
        return list(self._columns)

    def last_step(self) -> int | None:
        """Largest step of any row."""
        return self._last_step

    def out_of_order(self) -> int:
        """Rows that were appended at a step that an earlier row had reached."""
        return self._out_of_order

    def newest_step(self) -> int | None:
        """Step of the row that was appended last."""
        return self._steps[-1] if self._steps else None

    def last(self, name: str) -> float | None:
        """Newest effective value of one metric; costs nothing while steps only grow."""
        column = self._columns.get(name)
        if column is None:
            return None
        return column.values[-1] if not self._out_of_order else float(self.effective(name).values[-1])

    def effective_rows(self) -> Ints:
        """Indices of the rows people see, by step: for each step the newest attempt that reached it."""
        return self._sorted()[1]

    def superseded_rows(self) -> Ints:
        """Indices of the rows that a newer attempt, or a repeated line, replaced."""
        return self._sorted()[2]

    def effective(self, name: str) -> Series:
        """The effective series of one metric."""
        return self._series(name, self.effective_rows())

    def superseded(self, name: str) -> Series:
        """The replaced values of one metric, kept for whoever wants to see them."""
        return self._series(name, self.superseded_rows())

    def rows(self, indices: Ints) -> Rows:
        """Rows by index, aligned over all metrics."""
        columns: dict[str, Floats] = {}
        present: dict[str, Mask] = {}
        # Of a long run a second copy of every column is what memory would not hold.
        all_rows = len(indices) == len(self) and bool((indices == np.arange(len(self))).all())
        for name in self._columns:
            values, mask = self._aligned(name)
            columns[name], present[name] = (values, mask) if all_rows else (values[indices], mask[indices])
        return Rows(np.array(self._steps, np.int64)[indices], columns, present)

    def tail(self, start: int) -> Rows:
        """The rows from index `start` on, in the order they were appended.

        Costs what the tail holds, not what the table holds.
        """
        n = len(self._steps) - start
        columns: dict[str, Floats] = {}
        present: dict[str, Mask] = {}
        for name, column in self._columns.items():
            values, mask = np.full(n, np.nan), np.zeros(n, np.bool_)
            first = bisect_left(column.rows, start)
            rows = np.array(column.rows[first:], np.int64) - start
            values[rows], mask[rows] = np.array(column.values[first:]), True
            if mask.any():
                columns[name], present[name] = values, mask
        return Rows(np.array(self._steps[start:], np.int64), columns, present)

    def _aligned(self, name: str) -> tuple[Floats, Mask]:
        column = self._columns[name]
        if len(column.rows) == len(self._steps):
            return np.array(column.values), np.ones(len(self._steps), np.bool_)
        values, mask = np.full(len(self._steps), np.nan), np.zeros(len(self._steps), np.bool_)
        rows = np.array(column.rows, np.int64)
        values[rows], mask[rows] = np.array(column.values), True
        return values, mask

    def _series(self, name: str, indices: Ints) -> Series:
        if name not in self._columns:
            return Series(np.empty(0, np.int64), np.empty(0), np.empty(0))
        values, mask = self._aligned(name)
        kept = indices[mask[indices]]
        return Series(np.array(self._steps, np.int64)[kept], values[kept], np.array(self._wall_s)[kept])

    def _sorted(self) -> tuple[int, Ints, Ints]:
        if self._order is None or self._order[0] != len(self._steps):
            self._order = self._sort()
        return self._order

    def _sort(self) -> tuple[int, Ints, Ints]:
        n = len(self._steps)
        steps, rows = np.array(self._steps, np.int64), np.arange(n)
        if n < 2 or bool((np.diff(steps) > 0).all()):
            return n, rows, np.empty(0, np.int64)
        order = np.lexsort((rows, np.array(self._attempts, np.int64), steps))
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

    def __init__(self) -> None:
        self.train = Table()
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
