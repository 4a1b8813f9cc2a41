"""Pieces of a series keep what matters."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpo_daemon.downsample import downsample
from dpo_telemetry.series.columns import Series

VALUES = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf]))


def series_of(rows: dict[int, float]) -> Series:
    steps = np.array(sorted(rows), np.int64)
    return Series(steps, np.array([rows[step] for step in sorted(rows)], np.float64), np.zeros(len(rows)))


@given(st.dictionaries(st.integers(0, 10_000), VALUES, max_size=200), st.integers(1, 50))
def test_extremes_and_counts_survive_and_no_row_is_in_two_pieces(
    rows: dict[int, float], buckets: int
) -> None:
    pieces = downsample(series_of(rows), buckets=buckets)
    assert len(pieces.last) <= buckets
    assert np.all(pieces.first_steps <= pieces.last_steps)
    assert np.all(pieces.last_steps[:-1] < pieces.first_steps[1:])
    assert pieces.nonfinite.sum() == sum(not math.isfinite(value) for value in rows.values())
    finite = [value for value in rows.values() if math.isfinite(value)]
    if finite:
        assert np.nanmin(pieces.low) == min(finite)
        assert np.nanmax(pieces.high) == max(finite)


def test_a_piece_without_a_finite_value_has_no_extremes() -> None:
    pieces = downsample(series_of({1: math.nan, 2: math.inf, 3: 5.0}), buckets=2)
    assert (math.isnan(pieces.low[0]), pieces.nonfinite[0], pieces.low[1]) == (True, 2, 5.0)


def test_only_the_steps_that_were_asked_for_are_taken() -> None:
    pieces = downsample(
        series_of({step: float(step) for step in range(100)}), buckets=100, first_step=10, last_step=12
    )
    assert pieces.first_steps.tolist() == [10, 11, 12]
