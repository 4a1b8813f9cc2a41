"""The monitor over real run directories: state first, pictures second."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator

import pytest
from tests.tui.conftest import STEP_S, RunBuilder, drawn, metrics_at, monitor, screen_text, wait_until
from textual.widgets import Footer

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.reader.source import Chunk, DirectorySource, Link
from dpo_tui.app import MonitorApp
from dpo_tui.charts.widget import LineChart
from dpo_tui.logs.lines import LogLines
from dpo_tui.screens.help import HelpScreen
from dpo_tui.screens.logs import LogsScreen
from dpo_tui.screens.overview import OverviewScreen

Snap = Callable[..., bool]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The end of a run is a time of day."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def test_the_overview_shows_the_run_as_it_stands(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        assert app.snapshot is not None
        assert app.snapshot.status.state == "training"
        assert (app.snapshot.step, app.snapshot.max_steps) == (120, 300)
        assert app.snapshot.step_time_s == pytest.approx(STEP_S)
        loss = app.screen.query_one("#chart-loss", LineChart)
        assert [line.name for line in loss.lines] == ["train", "eval"]
        assert loss.lines[0].values[-1] == pytest.approx(metrics_at(120)["loss"])
        rewards = app.screen.query_one("#chart-rewards", LineChart)
        assert [line.name for line in rewards.lines] == ["chosen", "rejected", "eval chosen", "eval rejected"]
        assert app.snapshot.memory[0].measured_bytes < app.snapshot.memory[0].planned_bytes
        text = screen_text(app)
    assert "20 m 24 s left" in text
    assert "191 MiB of 193 MiB planned" in text
    assert "step 120/300  loss" in text


async def test_new_steps_appear_while_it_is_open(live_run: RunBuilder) -> None:
    app = monitor(live_run, later_s=60)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        live_run.step(121, loss=math.nan)
        live_run.log("a line \x1b]0;owned\x07 of the log\n")
        await wait_until(lambda: app.drawn is not None and app.drawn.step == 121, pilot)
        assert [alert.code for alert in app.drawn.alerts] == ["nonfinite"] if app.drawn else False
        await wait_until(lambda: "of the log" in screen_text(app), pilot)
        text = screen_text(app)
    assert "numbers overflow" in text
    assert "owned" not in text


async def test_a_nan_is_drawn_at_its_step(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run()
    builder.train(120, nan_at=77)
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        assert "×" in screen_text(app)


async def test_a_silent_run_is_no_flat_line(live_run: RunBuilder) -> None:
    app = monitor(live_run, later_s=47)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        text = screen_text(app)
    assert "silent" in text
    assert "last data 47 s ago" in text


async def test_a_finished_run_is_replayed(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run(max_steps=60)
    builder.train(60)
    builder.exit()
    builder.flush()
    app = monitor(builder, later_s=86_400)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        text = screen_text(app)
    assert "finished" in text
    assert "replay" in text
    assert " left" not in text


async def test_a_run_without_any_event_yet_is_shown_as_waiting(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run()
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        text = screen_text(app)
    assert "waiting" in text
    assert "no data yet" in text


async def test_q_quits_with_code_0(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press("q")
    assert app.return_code == 0
    assert app.failure is None


async def test_q_quits_from_the_help_too(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test() as pilot:
        await drawn(app, pilot)
        await pilot.press("question_mark")
        await pilot.press("q")
        assert app.return_code == 0


async def test_the_question_mark_opens_and_closes_the_help(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        assert "quit; the run goes on" in screen_text(app)
        await pilot.press("question_mark")
        assert isinstance(app.screen, OverviewScreen)


async def test_the_log_opens_at_its_end_and_follows_until_one_scrolls_up(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    live_run.log("".join(f"line {number}\n" for number in range(200)))
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press("5")
        assert isinstance(app.screen, LogsScreen)
        lines = app.screen.query_one(LogLines)
        await wait_until(lambda: "line 199" in screen_text(app), pilot)
        await pilot.press("home")
        await wait_until(lambda: "loading SmolLM2" in screen_text(app), pilot)
        assert not lines.following
        live_run.log("the newest line\n")
        await wait_until(lambda: lines.lines and lines.lines[-1] == "the newest line", pilot)
        assert "the newest line" not in screen_text(app)
        await pilot.press("f")
        await wait_until(lambda: "the newest line" in screen_text(app), pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, OverviewScreen)


async def test_any_size_works_and_a_small_one_keeps_what_matters(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(200, 60)) as pilot:
        await drawn(app, pilot)
        for width, height in ((40, 12), (10, 3), (2, 1), (19, 24), (40, 12)):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
        await wait_until(lambda: "step 120/300" in screen_text(app), pilot)
        small = screen_text(app)
        assert "training" in small
        assert "loss" in small
        assert "margin 0.8" in small
        assert app.screen.query_one(Footer).display
        assert not app.screen.query_one("#chart-rewards").display
        await pilot.resize_terminal(200, 60)
        await wait_until(lambda: "rank 0  191 MiB" in screen_text(app), pilot)
        assert app.screen.query_one("#chart-rewards").display


class LosingSource(DirectorySource):
    """A source whose keeper can be lost."""

    link: Link = "live"


async def test_a_lost_keeper_is_shown_and_data_goes_on(live_run: RunBuilder) -> None:
    source = LosingSource(live_run.run)
    now_s = live_run.now_s
    app = MonitorApp(source, live_run.run.name, clock=lambda: now_s)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        assert "keeper live" in screen_text(app)
        source.link = "lost"
        now_s += 12
        await wait_until(lambda: "keeper lost, last data 12 s ago" in screen_text(app), pilot)
        live_run.step(121)
        await wait_until(lambda: "step 121/300" in screen_text(app), pilot)
        assert "keeper lost, last data 0 s ago" in screen_text(app)


class FailingSource(DirectorySource):
    """A source that cannot be read."""

    def poll(self) -> list[Chunk]:
        raise TelemetryError("run: cannot be read; see `dpo-daemon list`")


async def test_a_failing_receiver_ends_the_monitor_with_its_error(live_run: RunBuilder) -> None:
    app = MonitorApp(FailingSource(live_run.run), "run")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(lambda: app.failure is not None, pilot)
    assert app.return_code == 2
    assert isinstance(app.failure, TelemetryError)


async def test_pictures_are_the_real_screen(live_run: RunBuilder) -> None:
    from dpo_tui.pictures import picture

    svg = await picture(live_run.run.path, (80, 24))
    assert svg.startswith("<svg")
    assert re.search("margins", svg)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (240, 70)], ids=["80x24", "120x40", "240x70"])
def test_the_overview_looks_as_it_did(
    snap_compare: Snap, new_run: Callable[..., RunBuilder], size: tuple[int, int]
) -> None:
    builder = new_run()
    builder.log("loading SmolLM2-135M-Instruct\n")
    builder.train(120, nan_at=77)
    builder.log(
        "".join(f"step {step}/300  loss {metrics_at(step)['loss']:.4f}\n" for step in range(100, 121))
    )
    builder.flush()
    app = monitor(builder)
    assert snap_compare(app, terminal_size=size, run_before=lambda pilot: drawn(app, pilot))
