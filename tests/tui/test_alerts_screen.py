"""The alerts screen over real run directories."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tui.conftest import RunBuilder, drawn, monitor, screen_text, wait_until
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.findings import findings
from dpo_tui.app import MonitorApp
from dpo_tui.attention import Attention, load
from dpo_tui.charts.widget import LineChart
from dpo_tui.screens.alerts import AlertsScreen, rows_of
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import ASCII, UNICODE, Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.alerts import groups
from dpo_tui.wants import ScreenName

NewRun = Callable[..., RunBuilder]
SIZES = [(40, 12), (60, 18), (80, 24), (120, 40), (240, 70)]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def truncated_away(builder: RunBuilder, last: int = 30) -> RunBuilder:
    """What the FSDP job of the first document logged: no completion left, a NaN in the logits."""
    builder.phase("train")
    zeros = dict.fromkeys(
        ("rewards__chosen", "rewards__rejected", "rewards__margins", "rewards__accuracies",
         "logps__chosen", "logps__rejected", "grad_norm"), 0.0,
    )  # fmt: skip
    for step in range(1, last + 1):
        builder.step(step, loss=math.log(2), logits__rejected=math.nan, **zeros)
    builder.flush()
    return builder


def several(builder: RunBuilder) -> RunBuilder:
    """A loss that turns NaN, and two GPUs that are slowed down."""
    builder.train(120, nan_at=77)
    builder.flush()
    return builder


async def opened(app: MonitorApp, pilot: Pilot[None]) -> AlertsScreen:
    """The alerts screen in front, filled."""
    await drawn(app, pilot)
    await pilot.press("4")
    await wait_until(lambda: isinstance(app.screen, AlertsScreen) and app.screen.rows, pilot)
    assert isinstance(app.screen, AlertsScreen)
    screen = app.screen
    await wait_until(lambda: screen.snapshot is not None and screen.snapshot.metrics is not None, pilot)
    return screen


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_reason_of_a_nan_is_on_the_screen_after_one_key(
    new_run: NewRun, size: tuple[int, int]
) -> None:
    app = monitor(truncated_away(new_run()))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        assert screen.row is not None
        assert screen.row.group.title == "completions truncated away"
        assert "nonfinite" in [alert.code for alert in screen.row.group.symptoms]
        text = " ".join(screen_text(app).split())
        details = screen.query_one("#details")
        assert details.scroll_offset.y == 0
    assert "completions truncated away" in text
    assert "max_length" in text
    assert "try Raise max_length" in text
    assert "nonfinite logits/rejected" in text


async def test_the_evidence_is_drawn_with_its_steps_marked(new_run: NewRun) -> None:
    app = monitor(several(new_run()))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        chart = screen.query_one("#evidence-0", LineChart)
        await wait_until(lambda: chart.lines, pilot)
        assert chart.title == "loss"
        assert chart.step_range == (57, 97)
        assert (chart.lines[-1].name, chart.lines[-1].steps.tolist()) == ("in question", [77])
        await wait_until(lambda: "×" in screen_text(app), pilot)
        assert "since step 77, 2026-09-21 14:22" in screen_text(app)


async def test_moving_chooses_and_a_new_alert_leaves_the_choice(new_run: NewRun) -> None:
    builder = truncated_away(new_run())
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        assert screen.row is not None
        assert screen.row.alert is None
        await pilot.press("down")
        chosen = screen.row
        assert chosen.alert is not None
        await wait_until(lambda: "because" in str(screen.query_one("#told", Static).content), pilot)
        count = len(screen.rows)
        builder.step(31, loss=math.nan)
        builder.flush()
        await wait_until(lambda: len(screen.rows) > count, pilot)
        # The NaN of the loss is a cause of its own, and the one that was chosen belongs to it now.
        assert screen.row.id != chosen.id
        assert screen.row.alerts == chosen.alerts
        highlighted = screen.query_one(OptionList).highlighted_option
        assert highlighted is not None
        assert highlighted.id == screen.row.id


@pytest.mark.parametrize("name", ["overview", "metrics", "alerts"])
async def test_the_name_of_a_metric_cannot_steer_the_terminal(new_run: NewRun, name: ScreenName) -> None:
    builder = new_run()
    builder.phase("train")
    for step in range(1, 31):
        builder.step(step, **{"x\x1b]0;owned\x07": math.nan if step == 20 else 1.0})
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot)
        await app.action_show(name)
        await wait_until(lambda: isinstance(app.screen, RunScreen) and name == app.screen.NAME, pilot)
        await drawn(app, pilot)
        assert not {"\x1b", "\x07"} & set(screen_text(app))


def test_alerts_that_differ_in_nothing_but_no_metric_have_lines_of_their_own() -> None:
    found = tuple(
        HealthAlert(code="other", severity="warning", metric=metric, step=1, message="seen")
        for metric in (None, "", None)
    )
    shown = groups(found, findings(found), Attention())
    ids = [row.id for row in rows_of(shown, UNICODE)]
    assert len(ids) >= 3
    assert len(set(ids)) == len(ids)


async def test_who_did_not_move_sees_the_gravest(new_run: NewRun) -> None:
    builder = new_run()
    builder.train(40)
    builder.step(41, logits__rejected=math.nan)
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        assert screen.row is not None
        assert screen.row.group.severity == "warning"
        builder.step(42, loss=math.nan)
        builder.flush()
        await wait_until(lambda: screen.row is not None and screen.row.group.severity == "critical", pilot)
        await wait_until(lambda: "Stop, go back" in str(screen.query_one("#told", Static).content), pilot)


async def test_acknowledging_is_kept_for_the_next_window_and_can_be_taken_back(new_run: NewRun) -> None:
    builder = several(new_run())
    run_id = builder.run.info().id
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("a")
        assert screen.row is not None
        assert screen.row.group.seen
        await wait_until(lambda: load(run_id).acknowledged, pilot)
        await pilot.press("1")
        await wait_until(lambda: app.drawn is not None and app.drawn.attention.acknowledged, pilot)
    again = monitor(builder)
    async with again.run_test(size=(80, 24)) as pilot:
        screen = await opened(again, pilot)
        assert screen.row is not None
        assert screen.row.group.seen
        await pilot.press("a")
        assert not screen.row.group.seen
        await wait_until(lambda: not load(run_id).acknowledged, pilot)


async def test_a_muted_code_is_not_counted_and_can_be_heard_again(new_run: NewRun) -> None:
    builder = several(new_run())
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("m")
        assert screen.row is not None
        assert screen.row.group.muted
        assert load(builder.run.info().id).muted == {"nonfinite"}
        await pilot.press("1")
        await wait_until(lambda: "nothing wrong so far" in screen_text(app), pilot)
        await pilot.press("4", "m")
        assert not screen.row.group.muted
        await pilot.press("1")
        await wait_until(lambda: "1 critical" in screen_text(app), pilot)


@pytest.mark.parametrize("key", ["j", "enter"])
async def test_a_jump_shows_the_metric_at_its_step(
    new_run: NewRun, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps: list[tuple[str, int | None]] = []

    async def jump(self: MonitorApp, metric: str, step: int | None = None) -> None:
        jumps.append((metric, step))

    monkeypatch.setattr(MonitorApp, "action_jump", jump)
    app = monitor(several(new_run()))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.press(key)
        await wait_until(lambda: jumps, pilot)
    assert jumps == [("loss", 77)]


async def test_a_click_chooses_and_does_not_jump(new_run: NewRun) -> None:
    app = monitor(truncated_away(new_run()))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        await pilot.click(OptionList, offset=(5, 1))
        await wait_until(lambda: screen.row is not None and screen.row.alert is not None, pilot)
        assert app.screen is screen


async def test_the_chosen_advice_can_be_copied(new_run: NewRun) -> None:
    app = monitor(several(new_run()))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        assert [copy.label for copy in screen.copies()[:2]] == ["what is wrong", "what to try"]
        assert screen.copies()[1].text.startswith("Stop, go back")


@pytest.mark.parametrize("signs", [UNICODE, ASCII], ids=["unicode", "ascii"])
async def test_it_works_at_any_size_with_alerts_and_without(new_run: NewRun, signs: Signs) -> None:
    quiet = new_run()
    quiet.flush()
    for builder, expected in ((truncated_away(new_run()), "truncated"), (quiet, "nothing wrong")):
        app = monitor(builder, signs=signs)
        async with app.run_test(size=(240, 70)) as pilot:
            await drawn(app, pilot)
            await pilot.press("4")
            for width, height in [(2, 1), (10, 3), *SIZES]:
                await pilot.resize_terminal(width, height)
                await pilot.pause()
                if (width, height) in SIZES:
                    await wait_until(lambda: expected in screen_text(app), pilot)  # noqa: B023 - used at once
            assert app.failure is None


async def test_a_frame_without_news_draws_nothing_anew(new_run: NewRun) -> None:
    app = monitor(several(new_run()))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        await pilot.pause()
        chart, before = screen.query_one("#evidence-0", LineChart), screen.snapshot
        assert isinstance(before, Snapshot)
        # The first time may find another size than the layout had so far.
        screen.show(before)
        lines = chart.lines
        screen.show(before)
        assert chart.lines is lines


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (240, 70)], ids=["80x24", "120x40", "240x70"])
def test_it_looks_as_it_did(
    new_run: NewRun, snap_compare: Callable[..., bool], size: tuple[int, int]
) -> None:
    app = monitor(truncated_away(new_run()))

    async def filled(pilot: Pilot[None]) -> None:
        screen = await opened(app, pilot)
        await wait_until(lambda: screen.query_one("#evidence-0", LineChart).lines, pilot)
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=filled)
