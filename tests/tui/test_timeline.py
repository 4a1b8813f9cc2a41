"""The timeline: what happened, in order, with a picture of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
from tests.tui.conftest import START_S, RunBuilder, drawn, metrics_at, monitor, screen_text, wait_until
from textual.pilot import Pilot
from textual.widgets import OptionList

from dpo_telemetry import events
from dpo_telemetry.figures import number
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.writer import EventWriter
from dpo_tui.app import MonitorApp
from dpo_tui.panels.timeline import timeline
from dpo_tui.screens.timeline import TimelineScreen
from dpo_tui.signs import ASCII, UNICODE
from dpo_tui.views.timeline import Timeline, rank_list, take_timeline

Snap = Callable[..., bool]
NewRun = Callable[..., RunBuilder]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def begin(builder: RunBuilder, attempt: int, resumed_from: int | None) -> None:
    """Another attempt, written by the same builder."""
    builder.writer.close()
    builder.attempt = create_attempt(builder.run, "", b"{}")
    builder.writer = EventWriter(builder.attempt.event_file("rank-00000"))
    builder.put(
        events.Start(
            **builder.stamp(), role="rank", host="node1", pid=4399, boot_id="b", process_started=builder.now_s,
            rank=0, world_size=1, attempt=attempt, device="cpu", max_steps=300, resumed_from_step=resumed_from,
        )
    )  # fmt: skip


def load(builder: RunBuilder, seconds: int) -> None:
    """A load that beats."""
    builder.phase("load")
    for _ in range(0, seconds, 5):
        builder.now_s += 5
        builder.put(events.Heartbeat(**builder.stamp(), phase="load"))
    builder.phase("load", "end")


@pytest.fixture
def eventful(new_run: NewRun) -> RunBuilder:
    """Killed while it trains, resumed, asked to save, silent for a while, training."""
    builder = new_run()
    load(builder, 25)
    builder.train(50)
    builder.now_s += 1
    builder.put(
        events.Checkpoint(**builder.stamp(), step=50, path="checkpoints/step-00050", size_bytes=78_400_000)
    )
    builder.step(51)
    builder.put(events.Exit(**builder.stamp(), role="rank", rank=0, signal="SIGKILL", reason="out of memory"))
    builder.flush()
    exit_ = HostExit(host="node1", code=1, reason="rank 0: SIGKILL", ended=builder.now_s + 1)
    builder.attempt.exit_file("node1").write_bytes(msgspec.json.encode(exit_))
    builder.now_s += 60
    begin(builder, 2, 50)
    load(builder, 20)
    builder.phase("train")
    for step in range(51, 101):
        builder.step(step)
    builder.put(events.Request(**builder.stamp(), id="r1", action="save", issuer="anna"))
    builder.put(events.Answer(**builder.stamp(), id="r1", ok=True, message="saved step 100"))
    builder.evaluate(100)
    builder.now_s += 90
    builder.step(101)
    builder.flush()
    return builder


async def opened(app: MonitorApp, pilot: Pilot[None]) -> TimelineScreen:
    await drawn(app, pilot)
    await pilot.press("7")
    screen = app.screen
    assert isinstance(screen, TimelineScreen)
    await wait_until(lambda: screen.snapshot is not None and screen.snapshot.record is not None, pilot)
    return screen


def evaluation(step: int) -> str:
    metrics = metrics_at(step)
    names = {"loss": "loss", "accuracy": "rewards/accuracies", "margin": "rewards/margins"}
    return "  ".join(f"{label} {number(metrics[name])}" for label, name in names.items())


def told(record: Timeline) -> list[tuple[str, str]]:
    return [(entry.what, entry.text) for entry in record.entries]


def test_everything_that_happened_is_told_in_order(eventful: RunBuilder) -> None:
    record = take_timeline(read_run(eventful.run))
    assert told(record) == [
        ("attempt 1", "1 rank on node1, cpu"),
        ("evaluation", evaluation(50)),
        ("checkpoint", "74.8 MiB  checkpoints/step-00050"),
        ("exit", "rank 0: SIGKILL, out of memory"),
        ("end", "host node1: code 1, rank 0: SIGKILL"),
        ("attempt 2", "1 rank on node1, cpu, resumed from step 50"),
        ("request", "save by anna"),
        ("answer", "save done: saved step 100"),
        ("evaluation", evaluation(100)),
        ("gap", "nothing of rank-00000 for 1 m 37 s"),
    ]
    assert [entry.mood for entry in record.entries][3:5] == ["bad", "bad"]
    assert record.entries[1].step == 50
    assert [(span.attempt, span.name, span.end_s is None) for spans in record.spans.values() for span in spans] == [
        (1, "load", False), (1, "train", True), (2, "load", False), (2, "train", True),
    ]  # fmt: skip
    assert [(attempt.number, attempt.ended) for attempt in record.attempts] == [(1, True), (2, False)]


def test_ranks_that_ended_alike_are_one_entry(new_run: NewRun) -> None:
    builder = new_run()
    builder.flush()
    writer = EventWriter(builder.attempt.event_file("agent-node1"))
    for rank in range(64):
        signal = "SIGKILL" if rank == 7 else "SIGABRT"
        writer.put(events.Exit(**builder.stamp(), role="rank", rank=rank, signal=signal))
    writer.put(events.Exit(**builder.stamp(), role="rank", rank=64, code=0))
    assert writer.flush()
    writer.close()
    found = [text for what, text in told(take_timeline(read_run(builder.run))) if what == "exit"]
    assert found == ["ranks 0-6, 8-63: SIGABRT", "rank 7: SIGKILL", "rank 64: code 0"]


def test_an_evaluation_that_is_not_finite_is_bad(new_run: NewRun) -> None:
    builder = new_run()
    builder.put(events.Eval(**builder.stamp(), step=5, metrics={"eval_loss": "nan"}))
    builder.flush()
    entry = take_timeline(read_run(builder.run)).entries[-1]
    assert (entry.text, entry.mood) == ("loss nan", "bad")
    assert math.isclose(entry.wall_s, START_S)


def test_the_first_entry_says_how_many_are_left_out(
    eventful: RunBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpo_tui.views.timeline.MAX_ENTRIES", 4)
    record = take_timeline(read_run(eventful.run))
    assert told(record)[:2] == [("left out", "6 earlier entries"), ("request", "save by anna")]
    assert len(record.entries) == 5


def test_texts_of_the_record_are_printable(new_run: NewRun) -> None:
    builder = new_run()
    evil = "a\x1b]0;owned\x07\nb"
    builder.put(events.Checkpoint(**builder.stamp(), step=1, path=evil, size_bytes=1))
    builder.put(events.Request(**builder.stamp(), id="x", action="stop", issuer=evil))
    builder.put(events.Exit(**builder.stamp(), role="rank", rank=0, reason=evil, signal=evil))
    builder.flush()
    assert all(text.isprintable() for _, text in told(take_timeline(read_run(builder.run))))


def test_ranks_are_written_as_people_write_them() -> None:
    assert rank_list([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert rank_list([]) == ""


async def test_the_bars_show_how_long_each_phase_took(eventful: RunBuilder) -> None:
    app = monitor(eventful)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(app, pilot)
        assert screen.snapshot is not None
        rows = [line.plain for line in timeline(screen.snapshot, 80, 12, UNICODE)]
        assert [row.split()[:2] for row in rows[:4]] == [
            ["1", "load"],
            ["1", "train"],
            ["2", "load"],
            ["2", "train"],
        ]
        assert rows[0].endswith("25 s")
        assert UNICODE.critical in rows[1]
        assert rows[4].startswith("2 no data")
        low = [line.plain for line in timeline(screen.snapshot, 80, 3, UNICODE)]
        assert [row[:9] for row in low[:2]] == ["attempt 1", "attempt 2"]
        assert all(len(row) <= 80 for row in rows + low)
        plain = "".join(line.plain for line in timeline(screen.snapshot, 80, 12, ASCII))
        assert plain.isascii()
        for width, height in ((1, 1), (20, 2), (240, 70)):
            assert len(timeline(screen.snapshot, width, height, UNICODE)) <= height


async def test_an_entry_with_a_step_opens_the_charts_there(
    eventful: RunBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int | None]] = []

    async def jump(self: MonitorApp, metric: str, step: int | None = None) -> None:
        asked.append((metric, step))

    monkeypatch.setattr(MonitorApp, "action_jump", jump)
    app = monitor(eventful)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("home", "down", "enter")
        await pilot.pause()
        assert asked == [("eval_loss", 50)]
        await pilot.press("down", "down", "down", "enter")
        await pilot.pause()
        assert screen.entries[4].step is None
        assert asked == [("eval_loss", 50)]


async def test_the_newest_entry_is_followed_until_one_goes_up(eventful: RunBuilder) -> None:
    app = monitor(eventful)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(app, pilot)
        entries = screen.query_one(OptionList)
        assert entries.highlighted == len(screen.entries) - 1
        eventful.evaluate(102)
        await wait_until(lambda: entries.highlighted == 10, pilot)
        await pilot.press("up")
        await pilot.pause()
        eventful.evaluate(103)
        await wait_until(lambda: len(screen.entries) == 12, pilot)
        assert entries.highlighted == 9
        await pilot.press("f")
        assert entries.highlighted == 11


async def test_nothing_that_happens_leaves_the_list_as_it_is(eventful: RunBuilder) -> None:
    app = monitor(eventful)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(app, pilot)
        before = screen.snapshot.record if screen.snapshot else None
        eventful.step(103)
        await wait_until(lambda: screen.snapshot is not None and screen.snapshot.step == 103, pilot)
        assert screen.snapshot is not None
        assert screen.snapshot.record is before


async def test_a_run_without_events_has_an_empty_timeline(new_run: NewRun) -> None:
    builder = new_run()
    builder.writer.close()
    builder.attempt.event_file("rank-00000").unlink()
    app = monitor(builder)
    async with app.run_test(size=(40, 12)) as pilot:
        await opened(app, pilot)
        assert "Nothing has happened yet" in screen_text(app)
        await pilot.press("enter", "f", "z", "up")
        assert app.failure is None


@pytest.mark.parametrize("size", [(40, 12), (20, 6), (10, 3), (240, 70)])
async def test_any_size_works(eventful: RunBuilder, size: tuple[int, int]) -> None:
    app = monitor(eventful)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.resize_terminal(*size)
        await pilot.pause()
        if size[0] >= 40:
            await wait_until(lambda: "gap" in screen_text(app), pilot, 3)
        assert app.failure is None


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (240, 70)], ids=["80x24", "120x40", "240x70"])
def test_the_timeline_looks_as_it_did(
    snap_compare: Snap, eventful: RunBuilder, size: tuple[int, int]
) -> None:
    async def prepare(pilot: Pilot[None]) -> None:
        await opened(app, pilot)
        await wait_until(lambda: "resumed" in screen_text(app), pilot)

    app = monitor(eventful)
    assert snap_compare(app, terminal_size=size, run_before=prepare)
