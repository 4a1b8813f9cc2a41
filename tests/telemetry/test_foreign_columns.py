"""Rows that are added many at once are the rows that are added one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpo_telemetry.series.columns import Table

ROW = st.tuples(
    st.integers(0, 6), st.integers(1, 3), st.dictionaries(st.sampled_from("abc"), st.floats(), max_size=3)
)
Row = tuple[int, int, dict[str, float]]


def one_by_one(rows: list[Row]) -> Table:
    table = Table()
    for step, attempt, metrics in rows:
        table.append(step, metrics.items(), attempt=attempt, wall_s=5.0)
    return table


def one_by_one_at(first: list[Row], later: list[Row]) -> Table:
    table = Table()
    for rows, wall_s in ((first, 5.0), (later, 0.0)):
        for step, attempt, metrics in rows:
            table.append(step, metrics.items(), attempt=attempt, wall_s=wall_s)
    return table


def at_once(*chunks: list[Row]) -> Table:
    table = Table()
    for rows in chunks:
        columns = {}
        for name in dict.fromkeys(name for _, _, metrics in rows for name in metrics):
            at = [row for row, (_, _, metrics) in enumerate(rows) if name in metrics]
            columns[name] = (np.array(at), np.array([rows[row][2][name] for row in at]))
        steps, attempts = (np.array([row[part] for row in rows], np.int64) for part in (0, 1))
        table.extend(steps, columns, attempts=attempts, wall_s=5.0)
    return table


def assert_same(one: Table, other: Table) -> None:
    assert one.names() == other.names()
    assert (len(one), one.last_step()) == (len(other), other.last_step())
    assert one.out_of_order() == other.out_of_order()
    np.testing.assert_equal(one.effective_rows(), other.effective_rows())
    np.testing.assert_equal(one.superseded_rows(), other.superseded_rows())
    for name in one.names():
        for series, wanted in (
            (one.effective(name), other.effective(name)),
            (one.superseded(name), other.superseded(name)),
        ):
            np.testing.assert_equal(series.steps, wanted.steps)
            np.testing.assert_equal(series.values, wanted.values)
            np.testing.assert_equal(series.wall_s, wanted.wall_s)
    for rows, wanted_rows in (
        (one.tail(len(one) // 2), other.tail(len(other) // 2)),
        (one.rows(one.effective_rows()), other.rows(other.effective_rows())),
        (one.rows(np.arange(len(one))), other.rows(np.arange(len(other)))),
    ):
        np.testing.assert_equal(rows.steps, wanted_rows.steps)
        assert list(rows.columns) == list(wanted_rows.columns)
        for name in rows.columns:
            np.testing.assert_equal(rows.columns[name], wanted_rows.columns[name])
            np.testing.assert_equal(rows.present[name], wanted_rows.present[name])


@given(st.lists(ROW, max_size=12), st.lists(ROW, max_size=12), st.lists(ROW, max_size=4))
def test_many_rows_at_once_are_the_same_rows(first: list[Row], second: list[Row], single: list[Row]) -> None:
    mixed = at_once(first, second)
    for step, attempt, metrics in single:
        mixed.append(step, metrics.items(), attempt=attempt, wall_s=5.0)
    assert_same(mixed, one_by_one(first + second + single))


@given(st.lists(ROW, max_size=12), st.lists(ROW, max_size=12))
def test_what_was_handed_out_stays_as_it_was(first: list[Row], later: list[Row]) -> None:
    table = at_once(first)
    before = {name: table.effective(name) for name in table.names()}
    copies = {
        name: (series.steps.copy(), series.values.copy(), series.wall_s.copy())
        for name, series in before.items()
    }
    for step, attempt, metrics in later:
        table.append(step, metrics.items(), attempt=attempt)
    assert_same(table, one_by_one_at(first, later))
    for name, series in before.items():
        for array, copy in zip((series.steps, series.values, series.wall_s), copies[name], strict=True):
            np.testing.assert_equal(array, copy)


def test_rows_by_index_are_in_the_order_of_the_indices() -> None:
    table = at_once([(1, 1, {"a": 1.0}), (2, 1, {"b": 2.0}), (3, 1, {"a": 3.0, "b": 4.0})])
    rows = table.rows(np.array([2, 0, 1]))
    assert rows.steps.tolist() == [3, 1, 2]
    assert rows.logged("a")[1].tolist() == [3.0, 1.0]
    assert rows.present["b"].tolist() == [True, False, True]
