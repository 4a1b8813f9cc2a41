"""What holds on every screen: palette, help, copying, plain characters, small terminals, hostile text."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from tests.tui.conftest import RunBuilder, drawn, wait_until
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.layout import RunInfo
from dpo_tui.app import MonitorApp
from dpo_tui.plain import ascii_of
from dpo_tui.screens.copy import CopyScreen
from dpo_tui.screens.help import HelpScreen
from dpo_tui.screens.overview import OverviewScreen
from dpo_tui.signs import ASCII, UNICODE, Signs
from dpo_tui.wants import SCREENS

HOSTILE = (
    "\x1b]0;owned\x07name\x1b[2J",
    "\u202egnp.exe\u2066x\u2069",
    "日本語の名前" * 6,
    "a\u0301\u0302\u0303" * 30,
    "👨\u200d👩\u200d👧 family",
    "[bold red]markup[/] [/nothing] \\",
    "\r\n\x00\x08\x9b31m",
    "tab\tand\x7f\x85",
)


def monitor(builder: RunBuilder, *, signs: Signs = UNICODE, settings_file: Path | None = None) -> MonitorApp:
    return MonitorApp(
        DirectorySource(builder.run), builder.run.name, clock=lambda: builder.now_s + 2, signs=signs,
        settings_file=settings_file,
    )  # fmt: skip


def screen_lines(app: MonitorApp) -> list[str]:
    return ["".join(part.text for part in strip) for strip in app.screen._compositor.render_strips()]


def screen_text(app: MonitorApp) -> str:
    return "\n".join(screen_lines(app))


async def choose(app: MonitorApp, pilot: Pilot[None], query: str) -> None:
    """Type into the palette and take the first hit."""
    await pilot.press("ctrl+p")
    await wait_until(lambda: isinstance(app.screen, CommandPalette), pilot)
    app.screen.query_one(Input).value = query
    await wait_until(lambda: query in screen_text(app).split("Search")[-1], pilot)
    await pilot.pause(0.3)
    await pilot.press("enter")
    await wait_until(lambda: not isinstance(app.screen, CommandPalette), pilot)


async def test_the_palette_goes_to_screens_and_changes_the_theme(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(100, 40)) as pilot:
        await drawn(app, pilot)
        await choose(app, pilot, "Show alerts")
        await wait_until(lambda: app.wants.screen == "alerts", pilot)
        await choose(app, pilot, "Theme blue-orange")
        await wait_until(lambda: app.theme == "blue-orange", pilot)


async def test_the_palette_jumps_to_a_metric_that_no_other_screen_shows(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(100, 40)) as pilot:
        await drawn(app, pilot)
        await choose(app, pilot, "Metric grad_norm")
        await wait_until(lambda: app.wants.screen == "metrics", pilot)


async def test_keys_and_clicks_reach_every_screen_and_escape_comes_back(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        for key, name in enumerate(SCREENS, start=1):
            await pilot.press(str(key))
            await wait_until(lambda name=name: app.wants.screen == name, pilot)  # type: ignore[misc]
        await pilot.press("2")
        await pilot.click("#tab-alerts")
        await wait_until(lambda: app.wants.screen == "alerts", pilot)
        await pilot.press("escape")
        await wait_until(lambda: isinstance(app.screen, OverviewScreen), pilot)


@pytest.mark.parametrize(
    ("widget", "offset", "screen"),
    [
        ("#answers", (5, 0), "metrics"),
        ("#answers", (60, 0), "memory"),
        ("#chart-margins", (9, 3), "metrics"),
        ("#memory", (3, 0), "memory"),
        ("#alerts", (3, 0), "alerts"),
        ("#log", (3, 2), "logs"),
    ],
)
async def test_a_click_on_the_overview_opens_what_is_behind(
    live_run: RunBuilder, widget: str, offset: tuple[int, int], screen: str
) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        await pilot.click(widget, offset=offset)
        await wait_until(lambda: app.wants.screen == screen, pilot)


async def test_the_help_shows_the_keys_of_the_screen_in_front(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(100, 60)) as pilot:
        await drawn(app, pilot)
        await pilot.press("question_mark")
        await wait_until(lambda: "Everywhere" in screen_text(app), pilot)
        overview = screen_text(app)
        assert "is it learning" in overview
        await pilot.press("escape")
        await pilot.press("5")
        await pilot.press("question_mark")
        await wait_until(lambda: "Everywhere" in screen_text(app), pilot)
        assert isinstance(app.screen, HelpScreen)
        logs = screen_text(app)
    assert "is it learning" not in logs
    assert "Logs" in logs
    for text in (overview, logs):
        assert "quit; the run goes on" in text
        assert "copy a value or a command" in text


async def test_y_copies_a_command_through_the_terminal(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(app, pilot)
        written: list[str] = []
        driver = app._driver
        assert driver is not None
        driver.write = written.append  # type: ignore[method-assign,assignment]
        await pilot.press("y")
        assert isinstance(app.screen, CopyScreen)
        await pilot.press("down", "enter")
        await wait_until(lambda: app.clipboard, pilot)
        assert app.clipboard == "dpo-tui attach 20261124-0312-demo"
        assert isinstance(app.screen, OverviewScreen)
        sent = base64.b64encode(app.clipboard.encode()).decode()
        assert f"\x1b]52;c;{sent}\a" in written


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_an_ascii_terminal_gets_ascii_everywhere(live_run: RunBuilder, size: tuple[int, int]) -> None:
    live_run.log("naïve — “quoted” 日本\n" * 40)
    app = monitor(live_run, signs=ASCII)
    async with app.run_test(size=size) as pilot:
        await drawn(app, pilot)
        for key in ("1", "4", "5", "y", "escape", "question_mark", "escape", "ctrl+p"):
            await pilot.press(key)
            await pilot.pause(0.1)
            for line in screen_lines(app):
                assert line.isascii(), (key, line)
                assert len(line) == size[0]


@pytest.mark.parametrize("text", ["a…│█", "日本", "é", "e\u0301", "👨\u200d👩\u200d👧", "┏━┓", "", "\u200b"])
def test_the_ascii_of_a_text_is_as_wide(text: str) -> None:
    assert ascii_of(text).isascii()
    assert len(ascii_of(text)) == cell_len(text)


async def test_without_colour_signs_and_words_tell_severities(
    new_run: Callable[..., RunBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    builder = new_run()
    builder.train(120, nan_at=77)
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        text = screen_text(app)
        styles = {
            part.style
            for strip in app.screen._compositor.render_strips()
            for part in strip
            if part.style is not None
        }
    colours = {colour.triplet for style in styles for colour in (style.color, style.bgcolor) if colour}
    assert all(rgb is None or rgb.red == rgb.green == rgb.blue for rgb in colours)
    assert "✖ 1 critical" in text
    assert "×" in text


async def test_an_empty_no_color_is_none(live_run: RunBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert not monitor(live_run).no_color


@pytest.mark.parametrize("size", [(19, 24), (80, 5), (1, 1), (12, 2)])
async def test_a_tiny_terminal_has_one_line_and_grows_again(
    live_run: RunBuilder, size: tuple[int, int]
) -> None:
    app = monitor(live_run)
    async with app.run_test(size=size) as pilot:
        await drawn(app, pilot)
        lines = screen_lines(app)
        assert "".join(lines[1:]).strip() == ""
        assert "● training"[: size[0] - 1] in lines[0]
        await pilot.resize_terminal(80, 24)
        await wait_until(lambda: "1 overview 2 metrics" in screen_text(app), pilot)


@pytest.mark.parametrize("size", [(59, 24), (80, 17)])
async def test_tabs_go_where_there_is_little_room(live_run: RunBuilder, size: tuple[int, int]) -> None:
    app = monitor(live_run)
    async with app.run_test(size=size) as pilot:
        await drawn(app, pilot)
        assert "2 metrics" not in screen_text(app)
        assert "training" in screen_text(app)


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_text_steers_the_terminal(new_run: Callable[..., RunBuilder], text: str) -> None:
    """Every cell that is drawn is printable, and lines stay as wide as the terminal."""
    builder = new_run()
    builder.phase("load", "progress", done=1, total=4, unit=text, message=text)
    builder.train(30)
    builder.step(31, **{text.replace("/", "__"): 1.0})
    builder.phase("eval", "progress", done=1, total=4, unit=text, message=text)
    builder.log(f"{text}\n" * 5)
    builder.flush()
    info = builder.run.run_file
    kept = msgspec.json.decode(info.read_bytes(), type=RunInfo)
    info.write_bytes(msgspec.json.encode(msgspec.structs.replace(kept, name=text)))
    app = monitor(builder)
    async with app.run_test(size=(100, 34)) as pilot:
        await drawn(app, pilot)
        for key in ("1", "4", "5", "6", "7", "1", "y", "escape", "question_mark", "escape", "ctrl+p"):
            await pilot.press(key)
            await pilot.pause(0.05)
            for line in screen_lines(app):
                for sign in line:
                    assert unicodedata.category(sign) not in ("Cc", "Cs"), (key, line)
                    assert unicodedata.bidirectional(sign) not in (
                        "RLO",
                        "LRO",
                        "RLE",
                        "LRE",
                        "RLI",
                        "LRI",
                        "FSI",
                    )
                assert cell_len(line) == 100, (key, line)
            assert "owned" not in screen_text(app)
