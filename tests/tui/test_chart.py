"""A chart shows what the numbers are, in whatever room it gets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpo_tui.charts.chart import Ink, Line, Picture, draw
from dpo_tui.charts.glyphs import ASCII, UNICODE
from dpo_tui.charts.ticks import step_label, step_ticks, value_labels, value_ticks

SIZES = [(200, 30), (66, 12), (40, 7), (24, 4), (10, 3), (2, 2), (1, 1), (0, 0)]


def line(values: list[float], name: str = "train", ink: Ink = Ink.TRAIN, marked: bool = False) -> Line:
    return Line(name, np.arange(len(values)), np.array(values, dtype=float), ink, marked)


def dots(picture: Picture, ink: Ink) -> int:
    return int(((picture.inks == ink) & (picture.codes != ord(" "))).sum())


@pytest.mark.parametrize(("width", "height"), [(200, 30), (66, 12), (40, 7), (12, 3)])
@pytest.mark.parametrize("at", [0, 3, 4999, 9999])
def test_a_nan_is_a_mark_at_its_step_at_every_size(width: int, height: int, at: int) -> None:
    values = np.sin(np.arange(10_000) / 300)
    values[at] = math.nan
    picture = draw([Line("loss", np.arange(10_000), values)], width, height, title="loss")
    rows, cells = np.nonzero(picture.codes == ord(UNICODE.not_a_number))
    assert len(cells) == 1
    assert picture.inks[rows[0], cells[0]] == Ink.NONFINITE
    left = 7 if width >= 24 else 0
    assert abs(cells[0] - (left + at / 9999 * (width - left - 1))) <= 1


def test_a_nan_stays_visible_when_zoomed_in() -> None:
    values = np.zeros(10_000)
    values[5000] = math.nan
    chart = [Line("loss", np.arange(10_000), values)]
    for reach in (5000, 500, 50, 5, 1):
        steps = (5000 - reach, min(9999, 5000 + reach))
        assert UNICODE.not_a_number in "".join(draw(chart, 40, 8, step_range=steps).rows())


def test_infinities_are_marked_at_the_edge_they_left_through() -> None:
    rows = draw([line([0.0, math.inf, 1.0, -math.inf, 0.5])], 40, 8).rows()
    assert UNICODE.above in rows[1]
    assert UNICODE.below in rows[6]


def test_a_run_of_nan_breaks_the_line_and_marks_every_step() -> None:
    values = [1.0] * 10 + [math.nan] * 10
    rows = draw([line(values)], 27, 6).rows()
    assert rows[4].count(UNICODE.not_a_number) >= 9
    assert draw([line([math.nan] * 3)], 40, 6).rows()[0].endswith("nan")


def test_a_spike_reaches_the_top_row() -> None:
    values = [0.0] * 10_000
    values[7_000] = 50.0
    picture = draw([line(values)], 60, 10)
    assert (picture.inks[1] == Ink.TRAIN).any()


@pytest.mark.parametrize(
    "values", [[], [0.5], [0.5] * 20, [0.0], [1e300, -1e300], [1.7e308, -1.7e308], [5e-324, 0]]
)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_odd_series_are_drawn_without_complaint(values: list[float], width: int, height: int) -> None:
    picture = draw([line(values)], width, height, title="loss")
    assert picture.codes.shape == (height, width)
    assert [len(row) for row in picture.rows()] == [width] * height


def test_a_single_point_is_visible() -> None:
    assert UNICODE.marker in "".join(draw([line([0.5])], 40, 8).rows())


def test_a_chart_without_points_says_so() -> None:
    assert "no data yet" in "".join(draw([line([])], 40, 8).rows())
    assert "no data yet" in "".join(draw([], 40, 8).rows())


def test_several_series_share_the_axes_and_keep_their_inks() -> None:
    picture = draw(
        [line([0.0, 1.0, 2.0], "chosen", Ink.CHOSEN), line([0.0, -1.0, -2.0], "rejected", Ink.REJECTED)],
        60,
        12,
    )
    assert dots(picture, Ink.CHOSEN) > 10
    assert dots(picture, Ink.REJECTED) > 10
    text = picture.rows()[0]
    assert "chosen 2.000" in text
    assert "rejected -2.000" in text


def test_sparse_evaluations_are_single_markers_over_the_training_line() -> None:
    train = line([math.sin(step / 9) for step in range(200)])
    evaluation = Line("eval", np.array([50, 100, 150]), np.array([0.1, 0.2, 0.3]), Ink.EVAL, marked=True)
    rows = draw([train, evaluation], 60, 12).rows()
    assert "".join(rows[1:]).count(UNICODE.marker) == 3


@settings(max_examples=300, deadline=None)
@given(
    width=st.integers(min_value=6, max_value=140),
    low=st.integers(min_value=0, max_value=3_000_000),
    span=st.integers(min_value=1, max_value=3_000_000),
)
@example(width=11, low=1617, span=86)
def test_step_labels_never_touch(width: int, low: int, span: int) -> None:
    chart = Line("loss", np.array([low, low + span]), np.array([0.0, 1.0]))
    labels = draw([chart], width, 8).rows()[-1].replace("step", "").split()
    assert labels == [label for label in step_labels(low, low + span, width) if label in labels]
    assert len(labels) == len(set(labels))


def step_labels(low: int, high: int, width: int) -> list[str]:
    room = width - 7 if width >= 24 else width
    return [step_label(step) for step in step_ticks(low, high, max(2, room // 9))]


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(min_value=2, max_value=30),
    low=st.floats(min_value=-1e6, max_value=1e6),
    span=st.floats(min_value=1e-3, max_value=1e6),
)
@example(height=2, low=-5.13, span=6.15)
def test_value_labels_have_a_row_each(height: int, low: float, span: float) -> None:
    rows = draw([line([low, low + span])], 60, height).rows()[1:]
    plot = rows[:-1] if height >= 4 else rows
    words = [row.split()[0] for row in plot if row.strip()]
    labels = [word for word in words if set(word) <= set("0123456789.-e")]
    possible = value_labels(value_ticks(low, low + span, max(2, len(plot) * 2 // 5)))
    assert set(labels) <= set(possible)
    assert len(labels) == len(set(labels))


def test_names_give_way_before_values_and_the_title() -> None:
    lines = [line([0.25], "chosen", Ink.CHOSEN), line([-0.5], "rejected", Ink.REJECTED)]
    assert draw(lines, 60, 6, title="rewards").rows()[0].endswith("━ chosen 0.2500  ━ rejected -0.5000")
    assert draw(lines, 30, 6, title="rewards").rows()[0].endswith("0.2500  -0.5000")
    assert draw(lines, 12, 6, title="rewards").rows()[0].startswith("rewards")


def test_ascii_charts_hold_nothing_but_ascii() -> None:
    values = [math.sin(step / 5) for step in range(100)]
    values[30], values[60] = math.nan, math.inf
    text = "".join(draw([line(values)], 60, 12, title="loss", glyphs=ASCII).rows())
    assert text.isascii()
    assert ASCII.not_a_number in text
