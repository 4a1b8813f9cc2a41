"""The configuration: what an attempt was told, what differs from what, and how to run it again."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.tui.conftest import START_S, RunBuilder, drawn, monitor, screen_text, wait_until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from dpo_profiles.load import load_profile
from dpo_profiles.render import to_toml
from dpo_telemetry import events
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.writer import EventWriter
from dpo_tui.app import MonitorApp
from dpo_tui.logsource import LogSource
from dpo_tui.screens.config import ConfigScreen
from dpo_tui.screens.screen import RunScreen
from dpo_tui.views.config import AttemptConfig, ConfigRow, take_config

Snap = Callable[..., bool]
NewRun = Callable[..., RunBuilder]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def start(builder: RunBuilder, attempt: int, torch: str) -> None:
    builder.put(
        events.Start(
            **builder.stamp(), role="rank", host="node1", pid=4399, boot_id="b00t", process_started=START_S,
            rank=0, world_size=2, attempt=attempt, device="NVIDIA H100", max_steps=8,
            versions={"torch": torch, "trl": "1.16.0"},
        )
    )  # fmt: skip


@pytest.fixture
def resumed(new_run: NewRun) -> RunBuilder:
    """The shipped demo with another beta, resumed with a smaller learning rate on a newer torch."""
    builder = new_run()
    info = {"id": "de54366f682840ef", "name": builder.run.name, "created": START_S, "host": "node1"}
    builder.run.run_file.write_text(json.dumps(info))
    first = load_profile("demo", ["loss.beta=0.2", 'adapter.target_modules=["q_proj"]'])
    builder.attempt.profile_file.write_text(to_toml(first))
    start(builder, 1, "2.12.0")
    builder.writer.close()
    second = load_profile(
        "demo", ["loss.beta=0.2", 'adapter.target_modules=["q_proj"]', "optimizer.learning_rate=1e-4"]
    )
    builder.attempt = create_attempt(builder.run, to_toml(second), b"{}")
    builder.writer = EventWriter(builder.attempt.event_file("rank-00000"))
    start(builder, 2, "2.13.0")
    builder.flush()
    return builder


def newest(builder: RunBuilder, place: str | None = None) -> AttemptConfig:
    return take_config(read_run(builder.run), place).attempts[-1]


def row(attempt: AttemptConfig, path: str) -> ConfigRow:
    return next(row for section in attempt.sections for row in section.rows if row.path == path)


async def opened(app: MonitorApp, pilot: Pilot[None]) -> ConfigScreen:
    await drawn(app, pilot)
    await pilot.press("6")
    screen = app.screen
    assert isinstance(screen, ConfigScreen)
    await wait_until(lambda: screen.snapshot is not None and screen.snapshot.record is not None, pilot)
    return screen


def paths(screen: ConfigScreen) -> list[str]:
    return [row.path for row in screen.rows if row is not None]


def test_what_differs_from_the_shipped_profile_has_both_values(resumed: RunBuilder) -> None:
    attempt = newest(resumed)
    assert attempt.base == "the shipped profile demo"
    assert (row(attempt, "loss.beta").value, row(attempt, "loss.beta").base) == ("0.2", "0.1")
    assert row(attempt, "adapter.target_modules").value == "[q_proj]"
    assert not row(attempt, "adapter.r").differs
    found = [row.path for section in attempt.sections for row in section.rows if row.base is not None]
    assert found == ["adapter.target_modules", "loss.beta", "optimizer.learning_rate"]


def test_what_differs_from_the_attempt_before_has_both_values(resumed: RunBuilder) -> None:
    attempt = newest(resumed)
    assert row(attempt, "optimizer.learning_rate").before == "0.0002"
    assert row(attempt, "torch").before == "2.12.0"
    assert row(attempt, "loss.beta").before is None
    assert row(attempt, "trl").before is None


def test_a_profile_of_another_name_is_compared_with_the_defaults(new_run: NewRun) -> None:
    builder = new_run()
    builder.attempt.profile_file.write_text(to_toml(load_profile("demo", ["name=mine"])))
    builder.flush()
    attempt = newest(builder, "/runs/a run")
    assert attempt.base == "the schema's defaults"
    assert row(attempt, "adapter.dropout").base == "0.05"
    assert attempt.command == "dpo-daemon start --profile '/runs/a run/attempts/001/profile.toml'"


def test_the_command_starts_the_same_profile_again(resumed: RunBuilder) -> None:
    command = shlex.split(newest(resumed).command)
    assert command[:4] == ["dpo-daemon", "start", "--profile", "demo"]
    assert command[4::2] == ["--set"] * 3
    written = resumed.attempt.profile_file.read_text()
    assert to_toml(load_profile("demo", command[5::2])) == written


@pytest.mark.parametrize("text", ["", "not [ toml", "name = 3\nloss = 'x'\n[other]\nkey = [1, {a = 2}]\n"])
def test_a_profile_that_is_none_is_said_and_breaks_nothing(new_run: NewRun, text: str) -> None:
    builder = new_run()
    builder.attempt.profile_file.write_text(text)
    builder.flush()
    attempt = newest(builder)
    assert attempt.has_profile is text.startswith("name")
    assert row(attempt, "world size").value == "1"


def test_texts_of_a_profile_are_printable(new_run: NewRun) -> None:
    builder = new_run()
    evil = json.dumps("a\x1b]0;owned\x07b\nc")
    builder.attempt.profile_file.write_text(f"name = {evil}\n[loss]\n{evil} = {evil}\n")
    builder.flush()
    attempt = newest(builder)
    rows = [row for section in attempt.sections for row in section.rows]
    assert all((row.path + row.value + (row.base or "")).isprintable() for row in rows)
    assert attempt.command.isprintable()


def test_ranks_of_one_host_are_one_row_and_other_versions_are_told(new_run: NewRun) -> None:
    builder = new_run()
    builder.flush()
    for rank in range(1, 4):
        writer = EventWriter(builder.attempt.event_file(f"rank-{rank:05d}"))
        writer.put(
            events.Start(
                **builder.stamp(), role="rank", host="node2", pid=rank, boot_id="b", process_started=START_S,
                rank=rank, device="NVIDIA H100", versions={"torch": "2.13.0" if rank < 3 else "2.12.0"},
            )
        )  # fmt: skip
        assert writer.flush()
        writer.close()
    attempt = newest(builder)
    assert row(attempt, "ranks 1-3").value == "node2  NVIDIA H100"
    assert row(attempt, "torch differs").value == "2.12.0, 2.13.0"


async def test_differences_and_a_filter_leave_what_is_asked_for(resumed: RunBuilder) -> None:
    app = monitor(resumed)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        assert len(paths(screen)) > 50
        assert "3 differ from the shipped profile demo" in screen_text(app)
        await pilot.press("d")
        assert paths(screen) == [
            "adapter.target_modules", "loss.beta", "optimizer.learning_rate", "torch",
        ]  # fmt: skip
        assert "base 0.1" in screen_text(app)
        assert "attempt 1 0.0002" in screen_text(app)
        await pilot.press("d", "slash", *"beta", "enter")
        assert set(paths(screen)) >= {"loss.beta", "optimizer.beta1", "optimizer.beta2"}
        assert "model.base" not in paths(screen)
        await pilot.press("escape")
        assert "model.base" in paths(screen)
        assert screen.query_one(Input).value == ""


async def test_the_attempt_before_is_a_key_away(resumed: RunBuilder) -> None:
    app = monitor(resumed)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        assert screen.attempt is not None
        assert screen.attempt.number == 2
        await pilot.press("left_square_bracket")
        assert screen.attempt.number == 1
        assert "attempt 1 of 2" in screen_text(app)
        await pilot.press("left_square_bracket")
        assert screen.attempt.number == 1
        await pilot.press("right_square_bracket")
        assert screen.attempt.number == 2


async def test_the_marked_value_and_the_command_can_be_copied(resumed: RunBuilder) -> None:
    app = monitor(resumed)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("slash", *"loss.beta", "enter")
        copies = {copy.label: copy.text for copy in screen.copies()}
        assert copies["value of loss.beta"] == "0.2"
        assert copies["setting"] == "loss.beta=0.2"
        assert copies["command that repeats the run"].startswith("dpo-daemon start --profile demo --set ")
        await pilot.press("y", "enter")
        await pilot.pause()
        assert app.clipboard == "0.2"


async def test_a_run_without_an_attempt_says_so(new_run: NewRun) -> None:
    builder = new_run()
    builder.writer.close()
    builder.attempt.event_file("rank-00000").unlink()
    builder.attempt.plan_file.unlink()
    builder.attempt.profile_file.unlink()
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        assert "no attempt yet" in screen_text(app)
        await pilot.press("d", "left_square_bracket", "slash", "x", "enter", "escape")
        assert screen.copies()
        assert app.failure is None


@pytest.mark.parametrize("size", [(40, 12), (20, 6), (10, 3), (240, 70)])
async def test_any_size_works(resumed: RunBuilder, size: tuple[int, int]) -> None:
    app = monitor(resumed)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        await pilot.resize_terminal(*size)
        await pilot.pause()
        if size[0] >= 40:
            await wait_until(lambda: "description" in screen_text(app), pilot)
        assert screen.query_one(OptionList).option_count == len(screen.rows)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (240, 70)], ids=["80x24", "120x40", "240x70"])
def test_the_configuration_looks_as_it_did(
    snap_compare: Snap, resumed: RunBuilder, size: tuple[int, int]
) -> None:
    async def prepare(pilot: Pilot[None]) -> None:
        await opened(app, pilot)
        await wait_until(lambda: "demo" in screen_text(app), pilot)

    app = monitor(resumed)
    assert snap_compare(app, terminal_size=size, run_before=prepare)


def commands(app: MonitorApp) -> list[str]:
    screen = app.screen
    assert isinstance(screen, RunScreen)
    return [copy.text for copy in screen.copies() if copy.label.startswith("command")]


async def test_the_commands_of_a_run_and_of_a_bare_log_are_those_that_work(
    resumed: RunBuilder, tmp_path: Path
) -> None:
    name = resumed.run.name
    app = MonitorApp(DirectorySource(resumed.run), name)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(app, pilot)
        await wait_until(lambda: len(commands(app)) == 4, pilot)
        assert commands(app)[0] == f"dpo-tui attach {name}"
        assert commands(app)[-1] == f"dpo-daemon stop {name}"
    log = tmp_path / "their log.jsonl"
    log.write_text("".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(1, 9)))
    app = MonitorApp(LogSource(log), log.name)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(app, pilot)
        assert commands(app) == [
            "dpo-tui replay 'their log.jsonl'", "dpo-tui replay --headless --json 'their log.jsonl'",
        ]  # fmt: skip
