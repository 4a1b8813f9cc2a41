"""Grouping, smoothing, axes, scales and windows of the metrics screen, as numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.geometry import Size

from dpo_telemetry.reader.model import RunModel
from dpo_tui.charts.axis import STEP, Axis
from dpo_tui.charts.chart import Ink, Line, draw, point_at
from dpo_tui.charts.glyphs import ASCII, UNICODE
from dpo_tui.charts.layout import arrange, place_at, tile_region
from dpo_tui.charts.plot import nearest_step
from dpo_tui.charts.smooth import smoothed
from dpo_tui.charts.ticks import decade_ticks, time_labels, time_ticks
from dpo_tui.screens.metrics.groups import grouped, matching
from dpo_tui.screens.metrics.lines import MOST_SUPERSEDED, Lines, continued
from dpo_tui.screens.metrics.moves import Look, nonfinite_after, whole_steps
from dpo_tui.screens.metrics.window import newest, panned, zoomed
from dpo_tui.views.series import take_series

MILLION = 1_000_000


def model_of(*attempts: range, columns: int = 1) -> RunModel:
    """A log whose attempts logged these steps."""
    model = RunModel()
    for number, steps in enumerate(attempts, start=1):
        for step in steps:
            values = [("loss", float(number)), ("rewards/chosen", 1.0), ("rewards/rejected", -1.0)][:columns]
            model.series.train.append(step, values, attempt=number, wall_s=1000.0 * number + step)
    return model


def test_pairs_and_evaluations_share_a_chart_and_a_lone_side_keeps_its_name() -> None:
    names = [
        "epoch", "logps/chosen", "logps/rejected", "loss", "policy_chosen_logps", "eval_loss",
        "eval_logps/chosen", "eval_logps/rejected", "eval_runtime", "rewards/chosen",
    ]  # fmt: skip
    groups = {group.title: [member.name for member in group.members] for group in grouped(names)}
    assert groups == {
        "loss": ["train", "eval"],
        "logps": ["chosen", "rejected", "eval chosen", "eval rejected"],
        "epoch": ["train"],
        "policy_chosen_logps": ["train"],
        "runtime": ["eval"],
        "rewards/chosen": ["train"],
    }
    assert sorted(member.metric for group in grouped(names) for member in group.members) == sorted(names)


@given(st.lists(st.text(max_size=12), unique=True, max_size=12))
def test_every_metric_is_in_exactly_one_chart(names: list[str]) -> None:
    groups = grouped(names)
    assert sorted(member.metric for group in groups for member in group.members) == sorted(names)
    assert len({group.title for group in groups}) == len(groups)


def test_a_filter_sees_titles_and_metrics_whatever_their_case() -> None:
    groups = grouped(["loss", "eval_loss", "rewards/chosen", "rewards/rejected", "a(b"])
    assert [group.title for group in matching(groups, "EVAL_")] == ["loss"]
    assert [group.title for group in matching(groups, "chosen$")] == ["rewards"]
    assert [group.title for group in matching(groups, "(")] == ["a(b"]
    assert len(matching(groups, "")) == 3


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(min_value=-1e6, max_value=1e6) | st.just(math.nan), min_size=1, max_size=50),
    weight=st.floats(min_value=0.01, max_value=0.99),
)
def test_an_average_is_that_of_a_plain_loop_and_keeps_what_is_no_number(
    values: list[float], weight: float
) -> None:
    found = smoothed(np.array(values), weight)
    total = count = 0.0
    for value, average in zip(values, found.tolist(), strict=True):
        finite = math.isfinite(value)
        total = total * weight + (value if finite else 0.0)
        count = count * weight + finite
        if finite:
            assert average == pytest.approx(total / count, rel=1e-6, abs=1e-3)
        else:
            assert math.isnan(average)


@pytest.mark.parametrize("known", [0, 1, 10, 4000, 4999, 5000])
@pytest.mark.parametrize("weight", [0.6, 0.99])
def test_an_average_goes_on_from_what_is_known_as_if_made_anew(known: int, weight: float) -> None:
    values = np.sin(np.arange(5000.0)) + np.arange(5000.0)
    values[[3, 4100]] = math.nan
    before = values[:known], smoothed(values[:known], weight)
    np.testing.assert_allclose(continued(before, values, weight), smoothed(values, weight), rtol=1e-9)


def test_an_average_is_made_anew_where_values_were_replaced() -> None:
    values = np.arange(100.0)
    before = values + 1, smoothed(values + 1, 0.9)
    assert continued(before, values, 0.9).tolist() == smoothed(values, 0.9).tolist()
    longer = np.arange(101.0), smoothed(np.arange(101.0), 0.9)
    assert continued(longer, values, 0.9).tolist() == smoothed(values, 0.9).tolist()


def test_rows_that_follow_are_smoothed_with_those_before_them() -> None:
    model = model_of(range(1, 9))
    group, lines = grouped(["loss"])[0], Lines()
    lines.of(group, take_series(model), 0.6)
    for step, value in ((9, 5.0), (10, math.nan), (11, 2.0)):
        model.series.train.append(step, [("loss", value)])
        metrics = take_series(model)
        shown = lines.of(group, metrics, 0.6)[-1]
        np.testing.assert_allclose(shown.values, smoothed(metrics["loss"].effective.values, 0.6))
    assert lines.any_positive(group, metrics, 0.6)


def test_a_log_scale_can_show_lines_with_a_positive_value_only() -> None:
    model, lines = RunModel(), Lines()
    group = grouped(["loss"])[0]
    for step, value, positive in ((1, math.nan, False), (2, -1.0, False), (3, 1.0, True)):
        model.series.train.append(step, [("loss", value)])
        assert lines.any_positive(group, take_series(model), 0.0) is positive


def test_the_next_value_that_is_no_number_is_found_both_ways_and_around() -> None:
    model = RunModel()
    for step in range(1, 10):
        loss = math.inf if step in (3, 7) else 1.0
        norm = math.nan if step in (3, 5) else 1.0
        model.series.train.append(step, [("loss", loss), ("grad_norm", norm)])
    metrics = take_series(model)
    groups = grouped(list(metrics))
    ahead = {at: nonfinite_after(groups, metrics, at, True) for at in (None, 0, 3, 5, 7)}
    assert ahead == {None: (0, 3), 0: (0, 3), 3: (1, 5), 5: (0, 7), 7: (0, 3)}
    back = {at: nonfinite_after(groups, metrics, at, False) for at in (None, 9, 7, 5, 3)}
    assert back == {None: (0, 7), 9: (0, 7), 7: (1, 5), 5: (1, 3), 3: (0, 7)}
    finite = take_series(model_of(range(1, 3)))
    assert nonfinite_after(grouped(["loss"]), finite, None, True) is None


def test_the_whole_range_has_the_replaced_steps_too() -> None:
    assert whole_steps(take_series(model_of(range(5, 20), range(2, 9)))) == (2, 19)
    assert whole_steps(take_series(RunModel())) is None


def test_no_smoothing_copies_nothing() -> None:
    values = np.arange(4.0)
    assert smoothed(values, 0.0) is values
    assert np.isfinite(smoothed(np.full(1000, 1.7e308), 0.99)).all()


@pytest.mark.parametrize("reach", [600_000, 50_000, 500, 3, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.99])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("by_time", [False, True])
def test_one_nan_among_a_million_steps_is_drawn_at_every_zoom(
    reach: int, smoothing: float, log: bool, by_time: bool
) -> None:
    steps, values = np.arange(MILLION), np.ones(MILLION)
    at = 654_321
    values[at] = math.nan
    axis = Axis("time", steps.astype(float), np.sqrt(steps)) if by_time else STEP
    lines = [Line("train", steps, smoothed(values, smoothing))]
    window = max(0, at - reach), min(MILLION - 1, at + reach)
    picture = draw(lines, 60, 10, step_range=window, axis=axis, log=log)
    marks = (picture.codes == ord(UNICODE.not_a_number)).any(axis=0).nonzero()[0]
    assert marks.tolist() == [picture.plot.column_of(at)]
    start, end = picture.plot.steps_of(int(marks[0])) or (0, 0)
    assert nearest_step(lines, start, end) == at


def test_a_log_scale_marks_what_it_cannot_show_and_labels_decades() -> None:
    values = np.array([1e-3, 1.0, 1e3, 0.0, -5.0, 1e6])
    picture = draw([Line("loss", np.arange(6), values)], 60, 16, log=True)
    text = "\n".join(picture.rows())
    assert "1e-2" in text
    assert "1e6" in text
    below = picture.codes == ord(UNICODE.below)
    assert below.sum() == 2
    assert (picture.inks[below] == Ink.TRAIN).all()
    rows = draw([Line("loss", np.arange(3), -values[:3])], 60, 16, log=True).rows()
    assert any("-500" in row or "-1000" in row for row in rows)


@pytest.mark.parametrize(
    "values",
    [[1e300, 1e-300], [5e-324, 5e-324], [1.7e308, 1.7e308], [0.0, 0.0], [1e16, 1e16 + 2], [math.inf]],
)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_huge_denormal_and_constant_values_are_drawn(values: list[float], log: bool, glyphs: object) -> None:
    picture = draw([Line("x", np.arange(len(values)), np.array(values))], 60, 10, log=log, glyphs=glyphs)  # type: ignore[arg-type]
    assert ((picture.inks == Ink.TRAIN) | (picture.inks == Ink.NONFINITE)).any()


def test_every_chart_detail_has_a_sign_in_ascii() -> None:
    lines = [Line("x", np.arange(100), np.sin(np.arange(100.0)))]
    base = draw(lines, 60, 10, title="x", rules=[20], glyphs=ASCII)
    pointed = point_at(base, lines, 50, title="x", glyphs=ASCII, selected=True)
    text = "".join(pointed.rows())
    assert text.isascii()
    assert text.startswith("> x")
    assert (pointed.inks == Ink.CROSS).any()
    assert (base.inks == Ink.RULE).any()
    assert not (base.inks == Ink.CROSS).any()


def test_zoom_keeps_the_step_it_is_made_at_and_ends_at_everything() -> None:
    assert zoomed((0, 1000), (0, 1000), STEP, 0.5, 1000) == (500, 1000)
    assert zoomed((0, 1000), (0, 1000), STEP, 0.5, 500) == (250, 750)
    assert zoomed((250, 750), (0, 1000), STEP, 2.0, 500) is None
    assert zoomed((5, 6), (0, 1000), STEP, 0.5, 6) == (5, 6)
    time = Axis("time", np.array([0.0, 500.0, 1000.0]), np.array([0.0, 1.0, 11.0]))
    assert zoomed((0, 1000), (0, 1000), time, 0.5, 1000) == (725, 1000)


def test_panning_moves_at_least_one_step_and_never_loses_the_data() -> None:
    assert panned((10, 12), (0, 100), STEP, 0.125) == (11, 13)
    window = (40, 60)
    for _ in range(100):
        window = panned(window, (0, 100), STEP, -0.5)
    assert window == (-10, 10)
    assert newest((40, 60), (0, 200)) == (180, 200)


def seen(look: Look) -> tuple[int, int, bool]:
    assert look.steps is not None
    return (*look.steps, look.following)


def test_looking_at_the_newest_goes_on_until_one_pans_away() -> None:
    look = Look()
    look.zoom(0.5)
    assert look.steps is None
    look.see((0, 100))
    look.zoom(0.5)
    look.see((0, 110))
    assert seen(look) == (60, 110, True)
    look.pan(-0.5)
    look.see((0, 120))
    assert seen(look) == (35, 85, False)
    look.pan(5.0)
    assert seen(look) == (70, 120, True)
    look.jump(7)
    assert seen(look) == (-93, 107, False)
    assert look.cursor == 7


def test_times_are_round_and_short() -> None:
    assert time_labels(time_ticks(0, 600, 5)) == ["0", "5m", "10m"]
    assert time_labels(time_ticks(60, 240, 8)) == ["1m", "1m30s", "2m", "2m30s", "3m", "3m30s", "4m"]
    assert time_labels(time_ticks(0, 90_000, 4)) == ["0", "12h", "1d"]
    assert len(time_ticks(0, 4e9, 6)) <= 6
    assert time_ticks(0, 4e9, 6)
    assert decade_ticks(-3.2, 4.1, 4) == [-2, 0, 2, 4]


@given(
    width=st.integers(0, 260), height=st.integers(0, 80), count=st.integers(0, 60), x=st.integers(0, 259), y=st.integers(0, 79)
)  # fmt: skip
def test_charts_of_a_grid_do_not_overlap_and_stay_inside(
    width: int, height: int, count: int, x: int, y: int
) -> None:
    size, grid = Size(width, height), arrange(width, height, count)
    regions = [tile_region(place, grid, size) for place in range(grid[0] * grid[1])]
    assert all(size.region.contains_region(region) for region in regions if region.area)
    holding = [place for place, region in enumerate(regions) if region.contains(x, y)]
    assert holding == ([] if place_at(x, y, grid, size) is None else [place_at(x, y, grid, size)])


def test_the_axes_are_what_the_run_has_numbers_for() -> None:
    model = RunModel()
    for step in range(1, 4):
        metrics = [("loss", 1.0), ("epoch", step / 10), ("tokens", 100.0)]
        model.series.train.append(step, metrics, wall_s=1000.0 + 2 * step)
    axes = {axis.name: axis for axis in take_series(model).axes}
    assert list(axes) == ["step", "time", "epoch", "tokens"]
    assert axes["time"].position(3) == 4.0
    assert axes["epoch"].position(2) == pytest.approx(0.2)
    assert axes["tokens"].position(3) == 300.0
    assert axes["tokens"].step_at(200.0) == 2.0


def test_series_are_taken_once_while_no_row_was_added() -> None:
    model = model_of(range(1, 10), range(5, 12))
    before = take_series(model)
    assert take_series(model) is before
    assert before.attempt_starts == (5,)
    assert before["loss"].superseded.steps.tolist() == [5, 6, 7, 8, 9]
    model.series.train.append(12, [("loss", 0.0)], attempt=2)
    assert take_series(model)["loss"].effective.steps[-1] == 12


def test_each_replaced_attempt_is_a_line_and_very_many_are_one() -> None:
    group = grouped(["loss"])[0]
    lines = Lines()
    metrics = take_series(model_of(range(1, 9), range(3, 9), range(5, 9)))
    made = lines.of(group, metrics, 0.0)
    assert [line.ink for line in made] == [Ink.SUPERSEDED, Ink.SUPERSEDED, Ink.TRAIN]
    assert all((np.diff(line.steps) > 0).all() for line in made)
    assert lines.of(group, metrics, 0.0) is made
    many = take_series(model_of(*[range(1, 9)] * (MOST_SUPERSEDED + 3)))
    assert [line.ink for line in lines.of(group, many, 0.0)] == [Ink.SUPERSEDED, Ink.TRAIN]
