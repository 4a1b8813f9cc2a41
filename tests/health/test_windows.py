"""What rules remember: windows, first values, latches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpo_telemetry.health.windows import (
    ABSURD,
    CHECKPOINTS,
    SHORT_ROWS,
    First,
    History,
    Latch,
    Pace,
    Settled,
    Spread,
    Trailing,
    aligned,
    beside,
    figures,
)
from dpo_telemetry.series.columns import Floats, Rows

FLOATS = st.lists(st.floats(-100, 100), max_size=60).map(np.array)


def rows(**columns: list[float | None]) -> Rows:
    """Rows at steps 1, 2, ...; None is a metric that a row did not log."""
    values = {
        name: np.array([np.nan if x is None else x for x in column]) for name, column in columns.items()
    }
    present = {name: np.array([x is not None for x in column]) for name, column in columns.items()}
    return Rows(np.arange(1, 1 + len(next(iter(values.values())))), values, present)


@given(FLOATS, st.integers(1, 12))
def test_a_trailing_mean_is_that_of_the_last_values(values: Floats, width: int) -> None:
    means = Trailing(width).feed(values)
    assert len(means) == len(values)
    for at, mean in enumerate(means):
        if at + 1 < width:
            assert np.isnan(mean)
        else:
            np.testing.assert_allclose(mean, values[at + 1 - width : at + 1].mean(), atol=1e-9)


@given(FLOATS, st.integers(0, 60), st.integers(2, 12))
def test_a_spread_is_the_same_to_the_last_bit_in_two_chunks(values: Floats, cut: int, width: int) -> None:
    fine = np.full(len(values), width)
    mean, error = Spread(width).feed(values, fine)
    window = Spread(width)
    parts = [window.feed(values[:cut], fine[:cut]), window.feed(values[cut:], fine[cut:])]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), mean)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), error)
    for at in range(width - 1, len(values)):
        last = values[at + 1 - width : at + 1]
        np.testing.assert_allclose(error[at], last.std() / np.sqrt(width), atol=1e-4)


def test_rows_of_several_steps_need_a_shorter_window() -> None:
    assert set(Pace(25).feed(np.arange(1, 40))) == {25}
    assert Pace(25).feed(np.arange(2, 80, 2))[-1] == 13
    widths = Pace(25).feed(np.arange(10, 400, 10))
    assert widths[-1] == SHORT_ROWS
    mean, _ = Spread(25).feed(np.arange(39.0), np.repeat([25, SHORT_ROWS], [20, 19]))
    assert np.isnan(mean[19])
    assert mean[20] == np.arange(11, 21).mean()


def test_an_absurd_value_does_not_drown_those_behind_it() -> None:
    values = np.append(1e300, np.full(50, 0.5))
    means = Trailing(10).feed(aligned(rows(x=values.tolist()), "x")[1][0])
    np.testing.assert_allclose(means[10:], 0.5, atol=1e-6)


def test_rows_are_aligned_over_what_they_logged_as_finite() -> None:
    log = rows(
        a=[1.0, None, 3.0, np.inf, 1e300], b=[1.0, 2.0, np.nan, 4.0, 5.0], c=[7.0, None, None, None, np.nan]
    )
    steps, (a, b) = aligned(log, "a", "b")
    assert (steps.tolist(), a.tolist(), b.tolist()) == ([1, 5], [1.0, ABSURD], [1.0, 5.0])
    np.testing.assert_array_equal(beside(log, "c", "a", "b"), [7.0, np.nan])
    np.testing.assert_array_equal(beside(log, "d", "a", "b"), [np.nan, np.nan])
    assert len(aligned(log, "a", "d")[0]) == 0


def test_first_values_are_kept_and_no_more() -> None:
    first = First(3)
    assert np.isnan(first.median)
    for chunk in ([5.0], [1.0, 9.0, 100.0], [2.0]):
        first.feed(np.array(chunk))
    assert (first.values, first.full, first.median) == ([5.0, 1.0, 9.0], True, 5.0)


def test_a_run_is_settled_since_its_learning_rate_last_rose() -> None:
    rates = np.array([0.0, 1.0, 2.0, 2.0, 1.0, 2.0, np.nan, 3.0, 3.0])
    assert Settled().feed(rates).tolist() == [1, 1, 1, 2, 3, 4, 5, 1, 2]
    settled = Settled()
    assert [int(settled.feed(np.array([rate]))[0]) for rate in rates] == [1, 1, 1, 2, 3, 4, 5, 1, 2]


def hover(latch: Latch, values: list[float]) -> list[bool]:
    """Whether the latch is raised behind each value; on at 1, off below 0.5."""
    seen = []
    for step, value in enumerate(values, 1):
        column = np.array([value])
        latch.feed(np.array([step]), column >= 1, column < 0.5, {"value": column})
        seen.append(latch.active)
    return seen


def test_a_value_that_hovers_at_a_threshold_raises_one_alert() -> None:
    latch = Latch()
    assert hover(latch, [0.9, 1.1, 0.9, 1.0, 0.6, 1.2]) == [False, True, True, True, True, True]
    assert (latch.first_step, latch.last_step, latch.count, latch.evidence) == (2, 6, 3, {"value": 1.2})


def test_an_alert_that_comes_back_starts_anew() -> None:
    latch = Latch()
    assert hover(latch, [1.0, 0.4, 0.9, 1.0]) == [True, False, False, True]
    assert (latch.first_step, latch.count) == (4, 1)


@given(st.lists(st.floats(0, 2), max_size=30), st.integers(0, 30))
def test_a_latch_is_the_same_in_two_chunks(values: list[float], cut: int) -> None:
    single, chunks = Latch(), Latch()
    hover(single, values)
    for start, end in ((0, cut), (cut, len(values))):
        column = np.array(values[start:end])
        steps = np.arange(start + 1, start + 1 + len(column))
        chunks.feed(steps, column >= 1, column < 0.5, {"value": column})
    assert single.active == chunks.active
    if single.active:
        assert vars(single) == vars(chunks)


def test_figures_are_finite_and_short() -> None:
    assert figures({"a": 1 / 3, "b": np.nan, "c": np.inf, "d": 123456789.0}) == {
        "a": 0.333333,
        "d": 123457000.0,
    }


@given(st.integers(1, 900), st.integers(0, 900))
def test_a_history_keeps_means_of_the_whole_run_in_bounded_room(count: int, cut: int) -> None:
    values = np.sin(np.arange(count))
    whole, parts = History(1), History(1)
    whole.feed(values)
    for chunk in (values[:cut], values[cut:]):
        parts.feed(chunk)
    assert whole.rows == parts.rows
    assert count - count / CHECKPOINTS * 2 - 1 <= whole.rows <= count
    if whole.rows:
        assert whole.mean(0, 1) == parts.mean(0, 1)
        np.testing.assert_allclose(whole.mean(0, 1), values[: whole.rows].mean(), atol=1e-9)
