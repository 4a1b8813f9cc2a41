"""The metrics screen: charts that move together, over real run directories."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from tests.tui.conftest import STEP_S, RunBuilder, drawn, screen_text, wait_until
from textual.pilot import Pilot
from textual.widgets import Input

from dpo_telemetry import events
from dpo_telemetry.identity import boot_id
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.writer import EventWriter
from dpo_tui.app import MonitorApp
from dpo_tui.charts.picture import Ink
from dpo_tui.charts.wall import ChartWall
from dpo_tui.screens.metrics import MetricsScreen
from dpo_tui.screens.overview import OverviewScreen

Snap = Callable[..., bool]
NewRun = Callable[..., RunBuilder]


def monitor(builder: RunBuilder) -> MonitorApp:
    return MonitorApp(DirectorySource(builder.run), builder.run.name, clock=lambda: builder.now_s + 2)


async def opened(app: MonitorApp, pilot: Pilot[None]) -> tuple[MetricsScreen, ChartWall]:
    await drawn(app, pilot)
    await pilot.press("2")
    await wait_until(
        lambda: isinstance(app.screen, MetricsScreen) and app.screen.metrics is not None, pilot, 30
    )
    screen = app.screen
    assert isinstance(screen, MetricsScreen)
    await pilot.pause()
    return screen, screen.query_one(ChartWall)


def titles(wall: ChartWall) -> list[str]:
    return [tile.title for tile in wall.tiles]


@pytest.fixture
def nan_run(new_run: NewRun) -> RunBuilder:
    builder = new_run()
    builder.train(120, nan_at=77)
    builder.flush()
    return builder


def resume(builder: RunBuilder, from_step: int, last: int) -> None:
    """A second attempt that repeats some steps."""
    attempt = create_attempt(builder.run, "", b"{}")
    builder.writer.close()
    builder.attempt, builder.writer = attempt, EventWriter(attempt.event_file("rank-00000"))
    builder.put(
        events.Start(
            **builder.stamp(), role="rank", host="node1", pid=4322, boot_id=boot_id(),
            process_started=builder.now_s, rank=0, world_size=1, device="cpu", max_steps=300,
            resumed_from_step=from_step,
        )
    )  # fmt: skip
    for step in range(from_step + 1, last + 1):
        builder.step(step, loss=0.3)
    builder.flush()


async def test_every_metric_has_a_chart_and_pairs_share_one(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(200, 60)) as pilot:
        screen, wall = await opened(app, pilot)
        assert titles(wall) == [
            "loss", "rewards", "rewards/margins", "rewards/accuracies", "grad_norm", "logps",
            "tokens", "step_time_s",
        ]  # fmt: skip
        rewards = wall.tiles[1].lines
        assert [line.name for line in rewards] == ["chosen", "rejected", "eval chosen", "eval rejected"]
        assert [line.name for line in wall.tiles[0].lines] == ["train", "eval"]
        assert screen.look.steps == (1, 120)


async def test_charts_that_do_not_fit_are_on_further_pages(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        _, wall = await opened(app, pilot)
        assert titles(wall) == ["loss", "rewards", "rewards/margins", "rewards/accuracies"]
        assert "page 1/2" in screen_text(app)
        await pilot.press("pagedown")
        assert titles(wall) == ["grad_norm", "logps", "tokens", "step_time_s"]
        await pilot.press("shift+tab", "shift+tab")
        assert titles(wall)[0] == "loss"


async def test_a_filter_is_a_text_or_an_expression_and_escape_drops_it(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, wall = await opened(app, pilot)
        await pilot.press("slash", *"^rew.*s$", "enter")
        assert titles(wall) == ["rewards", "rewards/margins", "rewards/accuracies"]
        assert not screen.query_one("#filter", Input).has_focus
        assert "3 of 8 charts" in screen_text(app)
        screen.set_filter("(")
        await pilot.pause()
        assert "no metric matches '('" in screen_text(app)
        await pilot.press("escape")
        assert len(wall.tiles) == 6
        await pilot.press("escape")
        assert isinstance(app.screen, OverviewScreen)


async def test_smoothing_keeps_the_values_under_the_line_and_is_said(nan_run: RunBuilder) -> None:
    app = monitor(nan_run)
    async with app.run_test(size=(120, 40)) as pilot:
        _, wall = await opened(app, pilot)
        await pilot.press("s")
        raw, smooth, evaluation = wall.tiles[0].lines
        assert (raw.ink, smooth.ink, evaluation.ink) == (Ink.TRAIN_RAW, Ink.TRAIN, Ink.EVAL)
        assert wall.tiles[0].title == "loss (EMA 0.6)"
        assert math.isnan(smooth.values[76])
        assert math.isfinite(smooth.values[77])
        assert app.settings.smoothing == 0.6
        await pilot.press("l")
        assert [title for title in titles(wall) if "log)" not in title] == ["logps (EMA 0.6)"]


async def test_the_x_axis_goes_by_time_where_the_steps_stay_the_same(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, wall = await opened(app, pilot)
        await pilot.press("x")
        assert wall.view.axis.name == "time"
        assert wall.view.axis.position(120) == pytest.approx(119 * STEP_S)
        assert wall.view.steps == (1, 120)
        assert "5m" in screen_text(app)
        await pilot.press("x")
        assert wall.view.axis.name == "tokens"
        assert wall.view.axis.position(120) == 120 * 2048
        await pilot.press("x")
        assert screen.axis_name == "step"


async def test_zoom_pan_and_follow(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, wall = await opened(app, pilot)
        await pilot.press("plus")
        assert wall.view.steps == (60, 120)
        live_run.step(121)
        live_run.flush()
        await wait_until(lambda: wall.view.steps == (61, 121), pilot)
        await pilot.press("left")
        first = wall.view.steps
        assert first is not None
        assert first[1] < 121
        live_run.step(122)
        live_run.flush()
        await wait_until(lambda: screen.look.whole == (1, 122), pilot)
        assert wall.view.steps == first
        await pilot.press("f")
        assert wall.view.steps == (62, 122)
        await pilot.press("0")
        assert wall.view.steps == (1, 122)


async def test_the_pointer_shows_the_same_step_in_every_chart(nan_run: RunBuilder) -> None:
    app = monitor(nan_run)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, wall = await opened(app, pilot)
        await pilot.press("n")
        assert screen.look.cursor == 77
        text = screen_text(app)
        assert "train nan" in text
        assert "step 77" in text
        columns = {int(column) for column in (wall._picture.inks == Ink.CROSS).any(axis=0).nonzero()[0]}
        assert len(columns) == wall.grid[0]
        await pilot.press("greater_than_sign")
        assert screen.look.cursor == 78
        await pilot.press("comma")
        assert screen.look.cursor is not None
        assert screen.look.cursor < 78
        await pilot.press("escape")
        assert screen.look.cursor is None


async def test_the_mouse_points_zooms_drags_and_picks(nan_run: RunBuilder) -> None:
    app = monitor(nan_run)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, wall = await opened(app, pilot)
        await pilot.hover("#wall", offset=(30, 5))
        pointed = screen.look.cursor
        assert pointed is not None
        assert wall.step_at(30, 5) == pointed
        screen.post_message(ChartWall.Zoomed(0.5, pointed))
        await pilot.pause()
        assert screen.look.window is not None
        before = screen.look.window
        await pilot.mouse_down("#wall", offset=(30, 5))
        await pilot.hover("#wall", offset=(40, 5))
        await pilot.mouse_up("#wall", offset=(40, 5))
        assert screen.look.window[0] < before[0]
        await pilot.click("#wall", offset=(70, 5))
        assert screen.selected == 1


async def test_a_chart_in_full_size_and_back(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        _, wall = await opened(app, pilot)
        await pilot.press("tab", "enter")
        assert (titles(wall), wall.grid) == (["rewards"], (1, 1))
        await pilot.press("escape")
        assert len(wall.tiles) == 6
        assert wall.selected == 1


async def test_a_jump_waits_for_data_and_puts_the_step_in_the_middle(nan_run: RunBuilder) -> None:
    app = monitor(nan_run)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        await app.action_jump("logps/rejected", 77)
        screen = app.screen
        assert isinstance(screen, MetricsScreen)
        await wait_until(lambda: screen.look.cursor == 77, pilot)
        assert screen.look.steps == (-23, 177)
        assert screen.groups[screen.selected].title == "logps"


async def test_replaced_values_and_the_start_of_an_attempt_stay_visible(live_run: RunBuilder) -> None:
    resume(live_run, 100, 140)
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        _, wall = await opened(app, pilot)
        superseded, train, _ = wall.tiles[0].lines
        assert superseded.ink is Ink.SUPERSEDED
        assert superseded.steps.tolist() == list(range(101, 121))
        assert train.values[-1] == 0.3
        assert wall.view.rules == (101,)
        assert (wall._picture.inks == Ink.SUPERSEDED).any()
        assert (wall._picture.inks == Ink.RULE).any()


async def test_nothing_is_drawn_again_while_nothing_changed(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        screen, wall = await opened(app, pilot)
        count, snapshot = wall.charts_drawn, app.snapshot
        assert count == 6
        await wait_until(lambda: app.snapshot is not snapshot and app.drawn is app.snapshot, pilot)
        await pilot.press("n", "greater_than_sign", "comma", "tab")
        assert screen.look.cursor is not None
        assert wall.charts_drawn == count


async def test_a_run_without_metrics_says_so_and_every_key_works(new_run: NewRun) -> None:
    builder = new_run()
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(40, 12)) as pilot:
        await opened(app, pilot)
        assert "no data yet" in screen_text(app)
        for key in ("s", "l", "x", "enter", "f", "n", "N", "plus", "minus", "0", "left", "right", "comma",
                    "less_than_sign", "tab", "down", "up", "pagedown", "pageup"):  # fmt: skip
            await pilot.press(key)
        for size in ((240, 70), (10, 3), (2, 1), (40, 12)):
            await pilot.resize_terminal(*size)
        assert "no data yet" in screen_text(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (240, 70)], ids=["80x24", "120x40", "240x70"])
def test_the_metrics_look_as_they_did(snap_compare: Snap, new_run: NewRun, size: tuple[int, int]) -> None:
    builder = new_run()
    builder.train(120, nan_at=77)
    builder.flush()
    resume(builder, 100, 140)
    app = monitor(builder)

    async def open_and_point(pilot: Pilot[None]) -> None:
        await opened(app, pilot)
        await pilot.press("s", "n")

    assert snap_compare(app, terminal_size=size, run_before=open_and_point)
