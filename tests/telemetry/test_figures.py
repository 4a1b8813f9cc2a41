"""Figures as people read them."""

from __future__ import annotations

import math

import pytest

from dpo_telemetry.figures import clock_text, duration, number, size, step_time


def test_numbers_keep_four_digits_and_never_lie_about_being_finite() -> None:
    shown = [
        number(value) for value in (0.69314, 12.3456, 0, -0.00123, 1.2e30, 8.9e-7, math.nan, -math.inf, None)
    ]
    assert shown == ["0.6931", "12.35", "0", "-0.0012", "1.2e30", "8.9e-7", "nan", "-inf", "n/a"]


def test_sizes_are_binary() -> None:
    assert [size(count) for count in (0, 999, 85_198_045, 85_520_809_984, None)] == [
        "0 B", "999 B", "81.3 MiB", "79.6 GiB", "n/a",
    ]  # fmt: skip


def test_durations_show_two_units() -> None:
    assert [duration(seconds) for seconds in (8, 125, 11_400, 187_200, None)] == [
        "8 s", "2 m 05 s", "3 h 10 m", "2 d 04 h", "n/a",
    ]  # fmt: skip
    assert [step_time(seconds) for seconds in (0.24, 6.8, None)] == ["240 ms", "6.80 s", "n/a"]


@pytest.mark.parametrize("wall_s", [1e300, -1e300, math.inf, math.nan])
def test_a_clock_out_of_every_calendar_is_no_text(wall_s: float) -> None:
    assert clock_text(wall_s, "%Y-%m-%d") == ""
    assert clock_text(1e9, "%Y") == "2001"
