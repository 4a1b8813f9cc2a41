"""From rows as programs write them (any names, numbers as text, cells that are missing) to a log.

Rows come in batches and are handled column by column: a million rows cost seconds, not minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from dpo_telemetry.foreign.log import MAX_METRICS, Chunk, ForeignLog
from dpo_telemetry.foreign.names import (
    MAX_NAME_CHARS,
    STEP_NAMES,
    is_evaluation,
    is_summary,
    metric_name,
    shows_training,
)
from dpo_telemetry.series.columns import Floats, Ints, Mask

MAX_NUMBER_CHARS = 64
MAX_STEP = 2**53
"""Steps beyond it are no whole numbers as floats; no training gets there."""
MAX_PLANS = MAX_METRICS + 500
MAX_PLANNED_NAMES = 100_000
"""Beyond these, rows with names in yet another combination are cut to the names that are known."""

Column = Sequence[Any] | Floats
"""A column's cells, shape (n,)."""

_NOT_ALONE = "epoch"
"""A row with nothing else is none, as the end of LLaMA-Factory's log."""
_LLAMA_FACTORY = {"accuracy": "rewards/accuracies"}


@dataclass(frozen=True)
class _Plan:
    """What the columns of rows with the same names mean."""

    steps: list[int]
    summary: list[int]
    metrics: list[tuple[int, str]]
    refused: bool


@dataclass
class _Part:
    """Rows with the same names, as columns; masks say where a row has a value."""

    at: Ints
    steps: Ints
    step_known: Mask
    metrics: list[tuple[str, Floats, Mask]]
    train: Mask
    evaluation: Mask


class RowTaker:
    """Takes rows in the order of the log."""

    def __init__(self, log: ForeignLog, *, logged: bool | None = None) -> None:
        """`logged`: whether rows carry their step; None lets the first rows say it."""
        self._log = log
        self._logged = logged
        if logged:
            log.step_source = "logged"
        self._counted = 0
        self._newest: int | None = None
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._planned = 0
        self._known: set[str] = set()

    def take(self, rows: Sequence[Any], *, plain: bool = False) -> None:
        """Rows as dicts; anything else is counted as not understood.

        Args:
            plain: the values of all rows are floats, text or None.
        """
        if not plain:
            objects = [row for row in rows if type(row) is dict]
            self._log.lines_not_understood += len(rows) - len(objects)
            rows = objects
        parts = []
        for names, places in self._by_names(rows):
            if names:
                chosen = [rows[at] for at in places]
                if len(chosen[0]) > len(names):
                    chosen = [{name: row[name] for name in names} for row in chosen]
                columns = _columns(chosen, len(names), plain)
                parts.append(self._part(names, columns, np.array(places, np.int64)))
        self._append(parts, len(rows))

    def _by_names(self, rows: Sequence[dict[str, Any]]) -> Iterable[tuple[tuple[str, ...], Sequence[int]]]:
        """Indices of the rows that have the same names in the same order."""
        all_names = list(map(tuple, rows))
        if len(set(all_names)) == 1:
            return [(all_names[0], range(len(rows)))]
        places: dict[tuple[str, ...], list[int]] = {}
        for at, names in enumerate(all_names):
            found = places.get(names)
            if found is None:
                found = places.setdefault(self._bounded(names), [])
            found.append(at)
        return places.items()

    def _bounded(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names, or those of them that are known where every row brings new ones."""
        if names in self._plans or not self._crowded:
            self._plan(names)
            return names
        self._log.lines_not_understood += 1
        known = tuple(name for name in names if name in self._known)
        return known if known in self._plans or len(self._plans) < 2 * MAX_PLANS else ()

    def take_columns(self, names: tuple[str, ...], columns: Sequence[Column]) -> None:
        """Rows of one shape as columns; a cell that is no number is missing."""
        n = len(columns[0]) if columns else 0
        self._append([self._part(names, columns, np.arange(n))], n)

    def take_arrays(self, steps: Ints, columns: Sequence[tuple[str, Floats, Mask]]) -> None:
        """Rows at known steps, shape (n,), as named columns of numbers with masks."""
        plan = self._plan(tuple(name for name, _, _ in columns))
        if plan.refused:
            self._log.lines_not_understood += len(steps)
        metrics = [(name, columns[at][1], columns[at][2]) for at, name in plan.metrics]
        known = np.ones(len(steps), np.bool_)
        summary = np.zeros(len(steps), np.bool_)
        self._append([_part_of(np.arange(len(steps)), steps, known, metrics, summary)], len(steps))

    def _part(self, names: tuple[str, ...], columns: Sequence[Column], at: Ints) -> _Part:
        plan = self._plan(names)
        n = len(at)
        if plan.refused:
            self._log.lines_not_understood += n
        steps, step_known = _steps([columns[index] for index in plan.steps], n)
        metrics = [(name, *_numbers(columns[index])) for index, name in plan.metrics]
        summary = np.zeros(n, np.bool_)
        for index in plan.summary:
            summary |= _numbers(columns[index])[1]
        return _part_of(at, steps, step_known, metrics, summary)

    @property
    def _crowded(self) -> bool:
        return len(self._plans) >= MAX_PLANS or self._planned >= MAX_PLANNED_NAMES

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = self._new_plan(names)
            self._planned += len(names)
            self._known.update(names[index] for index in plan.steps + plan.summary)
            self._known.update(names[index] for index, _ in plan.metrics)
        return plan

    def _new_plan(self, names: tuple[str, ...]) -> _Plan:
        folded = [name.lower().strip() if isinstance(name, str) else "" for name in names]
        steps = [folded.index(name) for name in STEP_NAMES if name in folded]
        chosen: dict[str, int] = {}
        refused = False
        for index, written in enumerate(names):
            name = metric_name(written) if isinstance(written, str) else None
            if name is None:
                refused |= isinstance(written, str) and len(written) > MAX_NAME_CHARS
                continue
            if "current_steps" in folded:
                name = _LLAMA_FACTORY.get(name, name)
            if name in chosen and written != name:
                continue
            if not self._log.admits(name):
                refused = True
                continue
            self._log.shows_training |= shows_training(name)
            chosen[name] = index
        return _Plan(
            steps=steps,
            summary=[index for index, name in enumerate(folded) if is_summary(name)],
            metrics=[(index, name) for name, index in chosen.items()],
            refused=refused,
        )

    def _append(self, parts: Iterable[_Part], n: int) -> None:
        parts = list(parts)
        train, evaluation, known = (np.zeros(n, np.bool_) for _ in range(3))
        steps = np.zeros(n, np.int64)
        for part in parts:
            train[part.at], evaluation[part.at] = part.train, part.evaluation
            steps[part.at], known[part.at] = part.steps, part.step_known
        rows = train | evaluation
        if not rows.any():
            return
        if self._logged is None:
            self._logged = bool(known[rows].any())
            if self._logged:
                self._log.step_source = "logged"
        if self._logged:
            self._log.lines_not_understood += int((rows & ~known).sum())
            train, evaluation = train & known, evaluation & known
        else:
            steps = self._counted + np.cumsum(train)
            self._counted = int(steps[-1])
        attempts = self._attempts(steps, train)
        series = self._log.series
        train_rows = Chunk(series.train, steps[train], attempts[train])
        eval_rows = Chunk(series.eval, steps[evaluation], attempts[evaluation])
        train_at, eval_at = np.cumsum(train) - 1, np.cumsum(evaluation) - 1
        for part in parts:
            in_train, in_eval = train[part.at], evaluation[part.at]
            train_row, eval_row = train_at[part.at], eval_at[part.at]
            evaluates = bool(in_eval.any())
            for name, values, present in part.metrics:
                if is_evaluation(name):
                    kept = present & in_eval
                    eval_rows.add(name, eval_row[kept], values[kept])
                    continue
                kept = present & in_train
                train_rows.add(name, train_row[kept], values[kept])
                if evaluates:
                    beside = present & in_eval if name == "epoch" else present & in_eval & ~in_train
                    told = [own for other, _, own in part.metrics if other == f"eval_{name}"]
                    beside = beside & ~told[0] if told else beside
                    if beside.any() and self._log.admits(f"eval_{name}"):
                        eval_rows.add(f"eval_{name}", eval_row[beside], values[beside])
        train_rows.append()
        eval_rows.append()

    def _attempts(self, steps: Ints, train: Mask) -> Ints:
        """The attempt of each row: a training row at an earlier step begins another."""
        trained = steps[train]
        again = np.zeros(len(steps), np.int64)
        if len(trained):
            before = trained[0] if self._newest is None else self._newest
            again[train] = np.diff(trained, prepend=before) < 0
            self._newest = int(trained[-1])
        attempts = self._log.attempts + np.cumsum(again)
        self._log.attempts = int(attempts[-1])
        return attempts


def _part_of(
    at: Ints, steps: Ints, step_known: Mask, metrics: list[tuple[str, Floats, Mask]], summary: Mask
) -> _Part:
    evaluation, trained, certain = (np.zeros(len(at), np.bool_) for _ in range(3))
    for name, _, present in metrics:
        if is_evaluation(name):
            evaluation |= present
        elif name != _NOT_ALONE:
            trained |= present
            if shows_training(name):
                certain |= present
    # Other figures beside those of an evaluation (tokens seen) belong to it and are no training row.
    train = np.where(evaluation, certain, trained) & ~summary
    return _Part(at, steps, step_known, metrics, train, evaluation & ~summary)


def _columns(rows: list[dict[str, Any]], names: int, plain: bool) -> Sequence[Column]:
    """The values of rows with the same names, column by column."""
    if plain:
        try:
            cells = np.fromiter(chain.from_iterable(map(dict.values, rows)), np.float64, len(rows) * names)
        except (ValueError, TypeError):
            pass
        else:
            # numpy takes None for NaN; a value that was not logged is none that is not a number.
            if np.isnan(cells).any() and None in chain.from_iterable(map(dict.values, rows)):
                return list(zip(*[row.values() for row in rows], strict=True))
            return list(np.ascontiguousarray(cells.reshape(len(rows), names).T))
    return list(zip(*[row.values() for row in rows], strict=True))


def _steps(columns: list[Column], n: int) -> tuple[Ints, Mask]:
    """The first step that each row gives, and which rows give one."""
    steps, known = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    for column in columns:
        if not isinstance(column, np.ndarray):
            column = [value.partition("/")[0] if type(value) is str else value for value in column]
        values, present = _numbers(column)
        with np.errstate(invalid="ignore"):
            whole = present & (np.abs(values) < MAX_STEP) & (values == np.floor(values)) & ~known
        steps[whole] = values[whole].astype(np.int64)
        known |= whole
    return steps, known


def _numbers(column: Column) -> tuple[Floats, Mask]:
    """A column's numbers, and which cells are numbers or text that means one."""
    if isinstance(column, np.ndarray):
        return column, np.ones(len(column), np.bool_)
    kinds = set(map(type, column))
    if kinds <= {float, int}:
        try:
            return np.fromiter(column, np.float64, len(column)), np.ones(len(column), np.bool_)
        except OverflowError:
            pass
    if kinds == {str} and max(map(len, column)) <= MAX_NUMBER_CHARS:
        try:
            return np.fromiter(map(float, column), np.float64, len(column)), np.ones(len(column), np.bool_)
        except ValueError:
            pass
    found = [number(value) for value in column]
    present = np.array([value is not None for value in found], np.bool_)
    return np.array([np.nan if value is None else value for value in found], np.float64), present


def number(value: object) -> float | None:
    """A number, or text that means one; None for anything else, True and False included."""
    kind = type(value)
    if kind is not float and kind is not int and (kind is not str or len(str(value)) > MAX_NUMBER_CHARS):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
