"""Axis labels are round, in range and tell their ticks apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_tui.charts.ticks import step_label, step_ticks, value_labels, value_ticks

FINITE = st.floats(min_value=-1e300, max_value=1e300)


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0.0, 1.0, 5, ["0.0", "0.5", "1.0"]),
        (0.31, 0.72, 5, ["0.4", "0.5", "0.6", "0.7"]),
        (-0.2, 0.21, 5, ["-0.2", "-0.1", "0.0", "0.1", "0.2"]),
        (8.8e-7, 9.1e-6, 4, ["2e-6", "4e-6", "6e-6", "8e-6"]),
        (1e9, 1e9 + 2, 3, ["1.000000000e9", "1.000000001e9", "1.000000002e9"]),
    ],
)
def test_ticks_are_round_and_labels_as_short_as_they_may(
    low: float, high: float, most: int, expected: list[str]
) -> None:
    assert value_labels(value_ticks(low, high, most)) == expected


@settings(max_examples=300, deadline=None)
@given(ends=st.tuples(FINITE, FINITE), most=st.integers(min_value=2, max_value=12))
def test_ticks_lie_within_the_range_and_labels_differ(ends: tuple[float, float], most: int) -> None:
    low, high = sorted(ends)
    if high / 4 - low / 4 <= abs(high) * 1e-9:
        return
    ticks = value_ticks(low, high, most)
    slack = (high / 4 - low / 4) * 1e-8
    assert len(ticks) <= most
    assert all(low / 4 - slack <= tick / 4 <= high / 4 + slack for tick in ticks)
    labels = value_labels(ticks)
    assert len(set(labels)) == len(ticks)


@given(
    low=st.integers(min_value=0, max_value=10**9),
    span=st.integers(min_value=0, max_value=10**9),
    most=st.integers(min_value=2, max_value=30),
)
def test_step_ticks_are_whole_and_few(low: int, span: int, most: int) -> None:
    ticks = step_ticks(low, low + span, most)
    assert len(ticks) <= most
    assert all(low <= tick <= low + span for tick in ticks)


def test_steps_are_labelled_briefly() -> None:
    assert [step_label(step) for step in (0, 950, 1500, 12_345, 250_000, 2_000_000)] == [
        "0", "950", "1.5k", "12345", "250k", "2M",
    ]  # fmt: skip
