"""Columns of a series keep what a reader must not miss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_tui.charts.axis import STEP
from dpo_tui.charts.downsample import Columns, downsample

NAN, INF = math.nan, math.inf


def columns_of(values: list[float], columns: int = 8, steps: list[int] | None = None) -> Columns:
    where = np.array(steps if steps is not None else range(len(values)), dtype=np.int64)
    ends = (int(where[0]), int(where[-1])) if len(where) else (0, 0)
    return downsample(where, np.array(values, dtype=np.float64), ends, STEP.edges(ends, columns))


@pytest.mark.parametrize("columns", [2, 3, 20, 200, 2000])
@pytest.mark.parametrize("at", [0, 1, 499_999, 999_999])
def test_one_nan_among_a_million_steps_marks_its_column_at_every_zoom(columns: int, at: int) -> None:
    steps = np.arange(1_000_000)
    values = np.zeros(1_000_000)
    values[at] = NAN
    for first, last in ((0, 999_999), (max(0, at - 1000), min(999_999, at + 1000)), (at, at + 1)):
        reduced = downsample(steps, values, (first, last), STEP.edges((first, last), columns))
        assert reduced.nan.sum() == 1
        column = (at - first) / max(1, last - first) * (columns - 1)
        assert abs(int(np.flatnonzero(reduced.nan)[0]) - column) <= 0.5


def test_a_spike_survives_with_its_exact_value() -> None:
    values = np.zeros(100_000)
    values[54_321], values[54_322] = 7.25, -3.5
    reduced = downsample(np.arange(100_000), values, (0, 99_999), STEP.edges((0, 99_999), 40))
    assert np.nanmax(reduced.high) == 7.25
    assert np.nanmin(reduced.low) == -3.5


def test_infinities_are_flagged_by_sign_and_leave_the_bounds_alone() -> None:
    reduced = columns_of([1.0, INF, 2.0, -INF], columns=2)
    assert reduced.positive_infinity.any()
    assert reduced.negative_infinity.any()
    assert not reduced.nan.any()
    assert reduced.bounds() == (1.0, 2.0)


def test_a_series_without_points_has_no_bounds() -> None:
    reduced = columns_of([])
    assert reduced.bounds() is None
    assert not reduced.filled.any()


def test_points_outside_the_range_are_left_out() -> None:
    steps = np.arange(10)
    reduced = downsample(steps, steps.astype(float), (3, 5), STEP.edges((3, 5), 6))
    assert reduced.bounds() == (3.0, 5.0)


def test_steps_need_not_be_evenly_spaced() -> None:
    reduced = columns_of([1.0, 2.0, 3.0], columns=11, steps=[0, 90, 100])
    assert np.flatnonzero(reduced.filled).tolist() == [0, 9, 10]


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(width=64), min_size=1, max_size=60),
    columns=st.integers(min_value=1, max_value=30),
)
def test_columns_agree_with_a_plain_loop(values: list[float], columns: int) -> None:
    reduced = columns_of(values, columns)
    finite = [value for value in values if math.isfinite(value)]
    assert reduced.bounds() == ((min(finite), max(finite)) if finite else None)
    assert reduced.nan.any() == any(map(math.isnan, values))
    assert reduced.positive_infinity.any() == (INF in values)
    assert reduced.negative_infinity.any() == (-INF in values)
