"""The list of runs: live ones first, each with its state and its loss, whatever lies in the folder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tui.conftest import START_S, RunBuilder, drawn, wait_until
from textual.pilot import Pilot
from textual.widgets import Input

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.identity import boot_id, current
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.rundir.live import register
from dpo_tui import runlist, sources
from dpo_tui.app import MonitorApp
from dpo_tui.panels.runs import columns_for, run_line, titles
from dpo_tui.runlist import Rows, RunList
from dpo_tui.screens.metrics import MetricsScreen
from dpo_tui.screens.overview import OverviewScreen
from dpo_tui.screens.runs import RunOptions, RunsScreen
from dpo_tui.signs import ASCII, UNICODE
from dpo_tui.views import runs as view
from dpo_tui.views.runs import LOSSES, RunRow, excerpt_of, look, losses_of

Keep = Callable[..., RunBuilder]
HOSTILE = "\x1b]0;owned\x07[bold]20261124\u202e"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The register of live runs of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """Makes runs of a name, made at a time, in one folder."""
    builders = []

    def make(name: str, *, made_s: float = START_S, **options: Any) -> RunBuilder:
        builder = RunBuilder(tmp_path / "runs", name=name.rpartition("-")[2], **options)
        path = builder.run.path.with_name(name)
        info = json.loads(builder.run.run_file.read_text()) | {
            "name": name,
            "created": made_s,
            "host": "node1",
        }
        builder.run.run_file.write_text(json.dumps(info))
        builder.run.path.rename(path)
        builder.run = RunDirectory(path)
        builder.attempt = builder.run.attempt(1)
        builders.append(builder)
        return builder

    yield make
    for builder in builders:
        builder.writer.close()


@pytest.fixture
def many(keep: Keep) -> list[RunBuilder]:
    """A live run, finished ones older and newer than it, one that failed, one that is damaged."""
    old = keep("20261101-0900-sft-check", made_s=START_S - 9e5, max_steps=40)
    old.train(40)
    old.exit()
    live = keep("20261124-0312-demo", made_s=START_S - 60)
    live.train(120)
    failed = keep("20261124-0401-zero3", made_s=START_S + 5)
    failed.train(60, nan_at=41)
    failed.exit(1, "rank 3: CUDA out of memory")
    builders = [old, live, failed]
    for builder in builders:
        builder.flush()
    summary = {
        "state": "failed", "reason": "rank 3: CUDA out of memory", "host": "gpu-node-07", "attempt": 1,
        "updated": failed.now_s, "step": 60, "max_steps": 300, "metrics": {"loss": 0.512},
        "alerts": {"critical": 2, "warning": 1}, "keeper": None, "id": "x", "name": "x",
    }  # fmt: skip
    failed.run.state_file.write_text(json.dumps(summary))
    torn = keep("20261123-1200-torn")
    torn.run.run_file.write_text("{")
    return [*builders, torn]


def rows_of(runs: RunList) -> Rows:
    found: list[Rows] = []
    runs.look(found.append)
    return found[-1]


def list_of(builders: list[RunBuilder]) -> tuple[RunList, float]:
    now_s = builders[1].now_s + 2
    return RunList(builders[0].run.path.parent, clock=lambda: now_s), now_s


def chooser(builders: list[RunBuilder]) -> MonitorApp:
    runs, now_s = list_of(builders)
    return MonitorApp(None, runs=runs, clock=lambda: now_s)


def screen(app: MonitorApp) -> RunsScreen:
    assert isinstance(app.screen, RunsScreen)
    return app.screen


async def listed(app: MonitorApp, pilot: Pilot[None]) -> RunsScreen:
    await wait_until(lambda: isinstance(app.screen, RunsScreen) and app.screen.complete, pilot)
    return screen(app)


def text_of(app: MonitorApp) -> str:
    return "\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips())


def test_live_runs_come_first_then_the_newest_and_a_damaged_one_says_why(many: list[RunBuilder]) -> None:
    rows = rows_of(list_of(many)[0])
    assert [row.name.rpartition("-")[2] for row in rows] == ["demo", "zero3", "check", "torn"]
    live, failed, old, torn = rows
    assert (live.state, live.live, live.step, live.max_steps, live.host) == (
        "training",
        True,
        120,
        300,
        "node1",
    )
    assert live.loss == pytest.approx(live.losses[-1], abs=0.05)
    assert (failed.state, failed.reason, failed.host) == (
        "failed",
        "rank 3: CUDA out of memory",
        "gpu-node-07",
    )
    assert (failed.loss, failed.alerts) == (0.512, {"critical": 2, "warning": 1})
    assert sum(map(math.isnan, failed.losses)) == 1
    assert (old.state, old.share, old.live) == ("finished", 1.0, False)
    assert (torn.state, torn.live) == ("damaged", False)
    assert torn.reason.startswith("run.json: damaged")


def test_a_link_to_itself_is_no_run_and_hides_none(many: list[RunBuilder]) -> None:
    loop = many[0].run.path.with_name("loop")
    loop.symlink_to(loop)
    assert len(rows_of(list_of(many)[0])) == len(many)
    assert rows_of(RunList(loop.parent, [RunDirectory(loop)]))[0].run.path == loop


def test_a_registered_run_is_live_wherever_it_lies(many: list[RunBuilder], tmp_path: Path) -> None:
    register(many[0].run, current())
    rows = rows_of(RunList(tmp_path / "elsewhere", clock=lambda: many[1].now_s))
    assert [(row.name, row.live) for row in rows] == [(many[0].run.name, True)]


def test_named_runs_are_all_there_is_and_each_is_there_once(many: list[RunBuilder]) -> None:
    named = [many[0].run, many[3].run, many[0].run]
    rows = rows_of(RunList(many[0].run.path.parent, named, clock=lambda: START_S))
    assert sorted(row.run.name for row in rows) == sorted({run.name for run in named})


def test_a_run_that_fell_silent_is_not_live(keep: Keep) -> None:
    builder = keep("20261124-0312-demo")
    builder.train(10)
    builder.flush()
    row = look(builder.run, registered=False, now_s=builder.now_s + 3600)
    assert (row.state, row.live, row.step) == ("silent", False, 10)
    assert "no heartbeat" in row.reason


def test_an_old_word_of_a_keeper_is_not_believed(many: list[RunBuilder]) -> None:
    live = many[1]
    summary = json.loads(many[2].run.state_file.read_text())
    summary |= {"state": "evaluating", "step": 7, "updated": live.now_s - 60}
    live.run.state_file.write_text(json.dumps(summary))
    row = look(live.run, registered=False, now_s=live.now_s)
    assert (row.state, row.step) == ("training", 120)
    live.run.state_file.write_text(json.dumps(summary | {"updated": live.now_s}))
    row = look(live.run, registered=False, now_s=live.now_s)
    assert (row.state, row.step) == ("evaluating", 7)


def test_the_loss_is_of_the_whole_run_for_bounded_bytes(keep: Keep) -> None:
    builder = keep("20261124-0312-demo", max_steps=30_000)
    builder.phase("train")
    for step in range(1, 30_001):
        builder.step(step, loss=3.0 - step / 15_000)
    builder.step(30_001, loss=math.nan)
    builder.flush()
    file = builder.attempt.event_file("rank-00000")
    excerpt = excerpt_of(file)
    assert file.stat().st_size > 20 * len(excerpt)
    assert len(excerpt) <= view.HEAD_BYTES + view.TAIL_BYTES + view.PIECES * view.PIECE_BYTES
    losses = losses_of(excerpt)
    assert len(losses) == LOSSES
    assert math.isnan(losses[-1])
    expected = [3.0 - 2.0 * (span + 0.5) / LOSSES for span in range(LOSSES - 1)]
    assert losses[:-1] == pytest.approx(expected, abs=2.0 / LOSSES)
    row = look(builder.run, registered=False, now_s=builder.now_s)
    assert (row.state, row.step) == ("training", 30_001)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 5000, b"{" * 5000, b"\xff\xfe", b'{"k":"step"}\n' * 3, b"[" * 100_000, b"\n" * 9],
)
@pytest.mark.parametrize("place", ["run.json", "state.json", "rank", "exit", "plan"])
def test_damaged_files_make_a_row(keep: Keep, content: bytes, place: str) -> None:
    builder = keep("20261124-0312-demo")
    builder.train(3)
    builder.flush()
    attempt = builder.attempt
    files = {
        "run.json": builder.run.run_file,
        "state.json": builder.run.state_file,
        "rank": attempt.event_file("rank-00000"),
        "exit": attempt.exit_file("node1"),
        "plan": attempt.plan_file,
    }
    files[place].write_bytes(content)
    row = look(builder.run, registered=False, now_s=builder.now_s)
    assert row.state == "damaged" if place == "run.json" else row.name == "20261124-0312-demo"
    line = run_line(row, columns_for([row], 78, UNICODE, builder.now_s), UNICODE, builder.now_s)
    assert line.cell_length <= 78


def test_what_is_no_regular_file_is_not_waited_for(keep: Keep) -> None:
    builder = keep("20261124-0312-demo")
    builder.train(3)
    builder.flush()
    for file in (builder.run.state_file, builder.attempt.exit_file("node1")):
        os.mkfifo(file)
    assert look(builder.run, registered=False, now_s=builder.now_s).step == 3
    builder.run.run_file.unlink()
    os.mkfifo(builder.run.run_file)
    assert look(builder.run, registered=False, now_s=builder.now_s).state == "damaged"


def test_values_out_of_range_are_a_row_too(keep: Keep) -> None:
    builder = keep("20261124-0312-demo", made_s=1e300)
    builder.train(2)
    builder.step(3, loss=1e308)
    builder.step(4, loss=-1e308)
    builder.step(5, loss=math.inf)
    builder.flush()
    row = look(builder.run, registered=False, now_s=builder.now_s)
    for width in (20, 38, 78, 238):
        columns = columns_for([row], width, ASCII, builder.now_s)
        assert run_line(row, columns, ASCII, builder.now_s).cell_length <= max(width, 30)
        assert titles(columns).cell_length == run_line(row, columns, ASCII, builder.now_s).cell_length


def test_what_has_ended_is_read_once(many: list[RunBuilder], monkeypatch: pytest.MonkeyPatch) -> None:
    runs, _ = list_of(many)
    rows_of(runs)
    again: list[str] = []

    def noted(run: RunDirectory, **given: Any) -> RunRow:
        again.append(run.name)
        return look(run, **given)

    monkeypatch.setattr(runlist, "look", noted)
    rows_of(runs)
    assert again == [many[1].run.name]
    many[3].run.run_file.write_text("{}")
    rows_of(runs)
    assert sorted(again[1:]) == sorted([many[1].run.name, many[3].run.name])


@pytest.mark.parametrize("width", [36, 58, 76, 116, 236])
def test_every_line_has_the_width_of_its_titles(many: list[RunBuilder], width: int) -> None:
    runs, now_s = list_of(many)
    rows = rows_of(runs)
    columns = columns_for(rows, width, UNICODE, now_s)
    lengths = {run_line(row, columns, UNICODE, now_s).cell_length for row in rows}
    assert lengths == {titles(columns).cell_length}
    assert max(lengths) <= width
    names = [column.name for column in columns]
    assert names[:2] == ["state", "run"]
    assert ("host" in names) == (width > 110)


async def test_the_chooser_opens_a_run_and_comes_back_to_open_another(many: list[RunBuilder]) -> None:
    app = chooser(many)
    async with app.run_test(size=(120, 40)) as pilot:
        await listed(app, pilot)
        await pilot.press("enter")
        await wait_until(lambda: app.drawn is not None and app.drawn.step == 120, pilot)
        assert isinstance(app.screen, OverviewScreen)
        first = app.screen
        await pilot.press("2")
        metrics = app.screen
        assert isinstance(metrics, MetricsScreen)
        await pilot.press("8")
        assert screen(app).highlighted is not None
        await pilot.press("down", "enter")
        await wait_until(lambda: app.drawn is not None and app.drawn.step == 60, pilot)
        assert app.drawn is not None
        assert app.drawn.status.state == "failed"
        assert app.drawn.charts is not None
        assert app.drawn.charts["loss"][0].steps[-1] == 60
        assert isinstance(app.screen, OverviewScreen)
        assert app.screen is not first
        await pilot.press("2")
        assert app.screen is not metrics
        assert app.wants.screen == "metrics"
        assert sum(worker.group == "receiver" and worker.is_running for worker in app.workers) == 1


async def test_the_source_of_the_run_before_is_closed_and_its_last_words_are_not_shown(
    many: list[RunBuilder],
) -> None:
    closed: list[str] = []

    class Closing(DirectorySource):
        def close(self) -> None:
            closed.append(self.run.name)

    runs, now_s = list_of(many)
    old, live = many[0].run, many[1].run
    app = MonitorApp(Closing(old), old.name, runs=runs, clock=lambda: now_s)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        for run in (live, old, live):
            await app.open_run(Closing(run), run.name)
        names = []
        await wait_until(lambda: app.drawn is not None, pilot)
        for _ in range(20):
            await pilot.pause(0.02)
            assert app.snapshot is not None
            names.append(app.snapshot.name)
        assert set(names) == {live.name}
        await wait_until(lambda: len(closed) == 3, pilot)
        assert sorted(closed) == sorted([old.name, live.name, old.name])


async def test_without_a_run_there_is_nothing_but_the_list(many: list[RunBuilder]) -> None:
    app = chooser(many)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("1", "escape", "S")
        assert isinstance(app.screen, RunsScreen)
        await wait_until(lambda: len(app._notifications) == 2, pilot)
        said = sorted(str(toast.message) for toast in app._notifications)
        assert said == ["no run is open; choose one", "stop with checkpoint: no run is open"]
        await pilot.press("q")
    assert app.return_code == 0


async def test_words_leave_the_runs_that_have_them(many: list[RunBuilder]) -> None:
    app = chooser(many)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("slash", *"ZERO")
        await wait_until(lambda: len(screen(app).shown) == 1, pilot)
        await pilot.press("space", *"q8S")
        await wait_until(lambda: not screen(app).shown, pilot)
        assert "escape shows all" in text_of(app)
        await pilot.press("escape")
        assert len(screen(app).shown) == 4
        await pilot.press("slash", *"check", "enter", "enter")
        await wait_until(lambda: app.drawn is not None and app.drawn.name.endswith("check"), pilot)
        await pilot.press("8")
        assert len(screen(app).shown) == 1
        await pilot.press("escape")
        assert screen(app).query_one("#filter", Input).value == ""
        await pilot.press("escape")
        assert isinstance(app.screen, OverviewScreen)


async def test_a_click_opens_a_run(many: list[RunBuilder]) -> None:
    app = chooser(many)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.click(RunOptions, offset=(20, 2))
        await wait_until(lambda: app.drawn is not None and app.drawn.step == 40, pilot)


async def test_what_cannot_be_opened_is_said_and_the_list_stays(
    many: list[RunBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(DirectorySource):
        def poll(self) -> Any:
            raise TelemetryError("events: cannot be read")

    def refused(_: RunDirectory) -> Any:
        raise TelemetryError("sockets: belong to user 7")

    app = chooser(many)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("end", "enter")
        await wait_until(lambda: len(app._notifications) == 1, pilot)
        monkeypatch.setattr(sources, "open_run", refused)
        await pilot.press("home", "enter")
        await wait_until(lambda: len(app._notifications) == 2, pilot)
        monkeypatch.setattr(sources, "open_run", Failing)
        await pilot.press("enter")
        await wait_until(lambda: len(app._notifications) == 3, pilot)
        await wait_until(lambda: isinstance(app.screen, RunsScreen), pilot)
        said = "\n".join(str(toast.message) for toast in app._notifications)
        monkeypatch.undo()
        await pilot.press("enter")
        await wait_until(lambda: app.drawn is not None and app.drawn.step == 120, pilot)
    assert app.failure is None
    for words in ("run.json: damaged", "belong to user 7", "events: cannot be read"):
        assert words in said


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("not a number")])
async def test_a_chosen_run_that_fails_in_any_way_of_files_goes_back_to_the_list(
    many: list[RunBuilder], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Failing(DirectorySource):
        def poll(self) -> Any:
            raise error

    monkeypatch.setattr(sources, "open_run", Failing)
    app = chooser(many)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("enter")
        await wait_until(lambda: len(app._notifications) == 1, pilot)
        await wait_until(lambda: isinstance(app.screen, RunsScreen), pilot)
        assert [str(toast.message) for toast in app._notifications] == [str(error)]
    assert app.failure is None


async def test_what_changes_is_seen_while_the_list_is_open(
    many: list[RunBuilder], keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpo_tui.screens.runs.LOOK_EVERY_S", 0.05)
    app = chooser(many)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("down")
        chosen = screen(app).highlighted
        assert chosen is not None
        many[1].step(121)
        many[1].flush()
        await wait_until(lambda: any(row.step == 121 for row in screen(app).rows), pilot)
        fresh = keep("20261124-0500-fresh", made_s=START_S + 1000)
        fresh.now_s = many[1].now_s
        fresh.train(1)
        fresh.flush()
        await wait_until(lambda: screen(app).rows[0].name == fresh.run.name, pilot)
        after = screen(app).highlighted
        assert after is not None
        assert after.run == chosen.run, "the highlight stays with its run"


async def test_names_cannot_steer_the_terminal(keep: Keep) -> None:
    builder = keep("20261124-0312-demo")
    builder.train(3)
    builder.flush()
    info = json.loads(builder.run.run_file.read_text()) | {"name": HOSTILE, "host": "[red]" + HOSTILE}
    builder.run.run_file.write_text(json.dumps(info))
    app = chooser([builder, builder])
    async with app.run_test(size=(240, 70)) as pilot:
        await listed(app, pilot)
        text = text_of(app)
        await pilot.press("enter")
        await drawn(app, pilot)
        text += text_of(app)
    assert "[bold]20261124" in text
    assert "owned" not in text
    assert not {"\x1b", "\u202e"} & set(text)


async def test_an_empty_folder_says_how_to_start(tmp_path: Path) -> None:
    app = MonitorApp(None, runs=RunList(tmp_path / "none"))
    async with app.run_test(size=(40, 12)) as pilot:
        await listed(app, pilot)
        assert "no run yet" in text_of(app)
        await pilot.press("enter", "slash", "escape")
        assert isinstance(app.screen, RunsScreen)


async def test_an_attempt_that_only_began_is_waiting(keep: Keep) -> None:
    builder = keep("20261124-0312-demo")
    builder.attempt.event_file("rank-00000").unlink()
    row = look(builder.run, registered=True, now_s=START_S)
    assert (row.state, row.live, row.losses) == ("waiting", True, ())
    start = events.Start(
        v=1, t=START_S, m=0, role="agent", host="node1", pid=1, boot_id=boot_id(), process_started=START_S
    )
    builder.attempt.event_file("agent-node1").write_bytes(events.encode(start))
    assert look(builder.run, registered=False, now_s=START_S + 5).state == "waiting"
    assert look(builder.run, registered=False, now_s=START_S + 500).state == "silent"


@pytest.mark.parametrize("size", [(20, 6), (40, 12), (60, 20), (80, 24), (120, 40), (240, 70)])
async def test_it_fits_every_terminal(many: list[RunBuilder], size: tuple[int, int]) -> None:
    app = chooser(many)
    async with app.run_test(size=size) as pilot:
        await listed(app, pilot)
        text = text_of(app)
        assert "training" in text
        assert "4 runs" in text
        await pilot.resize_terminal(100, 30)
        await wait_until(lambda: "loss so far" in text_of(app), pilot)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (240, 70)], ids=["80x24", "120x40", "240x70"])
def test_the_list_looks_as_it_did(
    many: list[RunBuilder],
    size: tuple[int, int],
    snap_compare: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = many[1].now_s + 2
    # The picture must not name this machine's folder.
    monkeypatch.chdir(many[0].run.path.parent.parent)
    app = MonitorApp(None, runs=RunList(Path("runs"), clock=lambda: now_s), clock=lambda: now_s)

    async def ready(pilot: Pilot[None]) -> None:
        await listed(app, pilot)

    assert snap_compare(app, terminal_size=size, run_before=ready)
