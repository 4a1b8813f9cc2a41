"""The log screen: search, levels, ranks, wrapping, following."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.tui.conftest import RunBuilder, drawn, monitor, screen_text, wait_until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.app import MonitorApp
from dpo_tui.logs.lines import LogLines
from dpo_tui.logs.picker import LogPicker
from dpo_tui.logs.reader import LogReader
from dpo_tui.screens.logs import LogsScreen
from dpo_tui.screens.overview import OverviewScreen

Snap = Callable[..., bool]
NewRun = Callable[..., RunBuilder]

TRACEBACK = """\
Traceback (most recent call last):
  File "train.py", line 7, in <module>
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
"""


def write(run: RunDirectory, name: str, text: str) -> None:
    with (run.attempt(1).logs_dir / name).open("a") as file:
        file.write(text)


def said(app: MonitorApp) -> str:
    return str(app.screen.query_one("#log-state", Static).render())


async def opened(app: MonitorApp, pilot: Pilot[None]) -> LogLines:
    await drawn(app, pilot)
    await pilot.press("5")
    assert isinstance(app.screen, LogsScreen)
    lines = app.screen.query_one(LogLines)
    await wait_until(lambda: lines.view.book and app.screen.is_current, pilot)
    return lines


@pytest.fixture
def crashed(live_run: RunBuilder) -> RunBuilder:
    """Two ranks, of which the second one ran out of memory."""
    live_run.log("".join(f"[2026-11-24 08:00:{n % 60:02d}] INFO reading shard {n}\n" for n in range(300)))
    live_run.log("[2026-11-24 08:01:00] WARNING 49 pairs dropped\n")
    write(live_run.run, "rank-00001.log", "rank 1 says hello\n" + TRACEBACK + "good bye\n")
    return live_run


async def test_search_marks_counts_and_jumps(crashed: RunBuilder) -> None:
    app = monitor(crashed)
    async with app.run_test(size=(100, 30)) as pilot:
        lines = await opened(app, pilot)
        await pilot.press("slash", *"shard 12")
        assert len(lines.sieve.matches) == 11
        await pilot.press("enter")
        assert lines.current is not None
        assert lines.line(lines.current).text.endswith("shard 129")
        assert "11 of 11 matches" in said(app)
        assert "reading shard 129" in screen_text(app)
        assert not lines.following
        await pilot.press("n")
        assert lines.line(lines.current).text.endswith("shard 12")
        await pilot.press("N", "N")
        assert lines.line(lines.current).text.endswith("shard 128")
        await pilot.press("m")
        assert len(lines.lines) == 11
        await pilot.press("escape")
        assert len(lines.lines) > 300
        await pilot.press("escape")
        await wait_until(lambda: isinstance(app.screen, OverviewScreen), pilot)


async def test_a_search_without_a_match_says_so(crashed: RunBuilder) -> None:
    app = monitor(crashed)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(app, pilot)
        await pilot.press("slash", *"no such (text", "enter")
        assert "0 matches" in said(app)
        assert isinstance(app.screen, LogsScreen)


async def test_digits_in_the_search_do_not_leave_the_screen(crashed: RunBuilder) -> None:
    app = monitor(crashed)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(app, pilot)
        await pilot.press("slash", "1", "2")
        assert isinstance(app.screen, LogsScreen)
        assert app.screen.query_one(Input).value == "12"


async def test_levels_are_filtered_by_a_key(crashed: RunBuilder) -> None:
    app = monitor(crashed)
    async with app.run_test(size=(100, 30)) as pilot:
        lines = await opened(app, pilot)
        await pilot.press("l")
        assert lines.lines == ("[2026-11-24 08:01:00] WARNING 49 pairs dropped",)
        assert "warnings and errors" in said(app)
        await pilot.press("l")
        assert not lines.lines
        await pilot.press("l")
        assert len(lines.lines) == 301
        await pilot.press("l")
        assert len(lines.lines) > 301


async def test_every_rank_and_all_together_are_a_key_away(crashed: RunBuilder) -> None:
    app = monitor(crashed)
    async with app.run_test(size=(100, 30)) as pilot:
        lines = await opened(app, pilot)
        await pilot.press("right_square_bracket")
        await wait_until(lambda: "rank 1 says hello" in lines.lines, pilot)
        assert said(app).startswith("rank 1")
        await pilot.press("e")
        assert lines.current is not None
        assert lines.line(lines.current).text.startswith("Traceback")
        await pilot.press("0")
        await wait_until(lambda: len(lines.lines) > 300, pilot)
        assert said(app).startswith("all 2 logs")
        await pilot.press("e")
        await wait_until(lambda: "rank 1 Traceback (most recent call last)" in screen_text(app), pilot)
        await pilot.press("left_square_bracket")
        await wait_until(lambda: "good bye" in lines.lines and len(lines.lines) == 6, pilot)
        await pilot.press("left_square_bracket")
        await wait_until(lambda: "good bye" not in lines.lines, pilot)


async def test_a_rank_is_chosen_by_its_number(crashed: RunBuilder) -> None:
    for rank in range(2, 40):
        write(crashed.run, f"rank-{rank:05d}.log", f"rank {rank} is here\n")
    app = monitor(crashed)
    async with app.run_test(size=(100, 30)) as pilot:
        lines = await opened(app, pilot)
        await pilot.press("r")
        assert isinstance(app.screen, LogPicker)
        await pilot.press("3", "7")
        assert app.screen.query_one(OptionList).option_count == 1
        await pilot.press("enter")
        await wait_until(lambda: lines.lines == ("rank 37 is here",), pilot)


async def test_wrapping_shows_the_end_of_long_lines(live_run: RunBuilder) -> None:
    live_run.log("start " + "文" * 100 + " end of the line\n")
    app = monitor(live_run)
    async with app.run_test(size=(60, 24)) as pilot:
        lines = await opened(app, pilot)
        await wait_until(lambda: "start 文" in screen_text(app), pilot)
        assert "end of the line" not in screen_text(app)
        await pilot.press("w")
        await wait_until(lambda: "end of the line" in screen_text(app), pilot)
        assert lines.virtual_size.width <= 60
        assert lines.virtual_size.height > len(lines.lines)


async def test_a_reader_who_scrolled_up_stays_where_they_are_while_old_lines_give_way(
    live_run: RunBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpo_tui.receiver.LogReader", lambda *_: LogReader(200))
    live_run.log("".join(f"number {n}\n" for n in range(200)))
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        lines = await opened(app, pilot)
        await wait_until(lambda: "number 199" in screen_text(app), pilot)
        for _ in range(3):
            await pilot.press("pageup")
        before = [line for line in screen_text(app).splitlines() if "number " in line]
        live_run.log("".join(f"number {n}\n" for n in range(200, 300)))
        await wait_until(lambda: lines.lines[-1] == "number 299", pilot)
        assert [line for line in screen_text(app).splitlines() if "number " in line] == before
        assert not lines.following


async def test_the_log_never_steers_the_terminal(live_run: RunBuilder) -> None:
    live_run.log("evil \x1b]52;c;bm8=\x07\x1b[2J\x9b31m [red]markup[/red] \u202egnp.exe\n")
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await wait_until(lambda: "evil" in screen_text(app), pilot)
        text = screen_text(app)
    assert "[red]markup[/red]" in text
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)


async def test_a_run_without_logs_says_so(new_run: NewRun) -> None:
    builder = new_run()
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        assert "No raw logs yet" in screen_text(app)
        await pilot.press("0", "e", "right_square_bracket", "r", "n", "m", "w", "l", "f")
        assert app.failure is None


@pytest.mark.parametrize("size", [(40, 12), (20, 6), (10, 3), (240, 70)])
async def test_any_size_shows_the_newest_line(crashed: RunBuilder, size: tuple[int, int]) -> None:
    app = monitor(crashed)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.press("0", "w")
        await pilot.resize_terminal(*size)
        await pilot.pause()
        if size[0] >= 40:
            await wait_until(lambda: "dropped" in screen_text(app), pilot)
        await pilot.resize_terminal(80, 24)
        assert app.failure is None


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (240, 70)], ids=["80x24", "120x40", "240x70"])
def test_the_log_screen_looks_as_it_did(
    snap_compare: Snap, crashed: RunBuilder, size: tuple[int, int]
) -> None:
    app = monitor(crashed)

    async def prepare(pilot: Pilot[None]) -> None:
        lines = await opened(app, pilot)
        await pilot.press("0")
        await wait_until(lambda: len(lines.view.shown) == 2 and lines.lines, pilot)
        await pilot.press("slash", *"memory", "enter")
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=prepare)
