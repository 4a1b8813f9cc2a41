"""A run is asked only after a yes, by whoever may, and what came of it is said."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tui.conftest import RunBuilder, drawn, wait_until
from textual.app import App
from textual.command import CommandList, CommandPalette
from textual.pilot import Pilot
from textual.widgets import Button
from textual.worker import Worker

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.reader.status import Status
from dpo_telemetry.rundir.control import ControlRequest, pending
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.wire.endpoints import of_run
from dpo_tui.app import MonitorApp
from dpo_tui.commands import Commands
from dpo_tui.control import EXPIRES_IN_S, WISH_KEYS, Asked, Heard, LocalControl, Requests, Wish
from dpo_tui.errors import TuiError
from dpo_tui.screens.control import ControlScreen, consequences
from dpo_tui.screens.screen import RunScreen
from dpo_tui.snapshot import Snapshot
from dpo_tui.theme import DECK
from dpo_tui.wants import SCREENS, ScreenName

ASKED = Asked("abc", "save", attempt=1, expires_s=1000.0)
RUNNING = Heard((), (), attempt=1, status=Status("training"), now_s=10.0)


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sockets and state of this test alone; short, because socket addresses are."""
    with tempfile.TemporaryDirectory(prefix="dpo-", dir="/tmp") as folder:
        for variable, name in (("XDG_RUNTIME_DIR", "runtime"), ("XDG_STATE_HOME", "state")):
            (Path(folder) / name).mkdir(mode=0o700)
            monkeypatch.setenv(variable, f"{folder}/{name}")
        yield


def monitor(builder: RunBuilder, later_s: float = 2.0) -> MonitorApp:
    frozen = builder.now_s + later_s
    return MonitorApp(
        DirectorySource(builder.run),
        builder.run.name,
        control=LocalControl(builder.run),
        clock=lambda: frozen,
    )


def told(app: MonitorApp) -> list[str]:
    return [str(toast.message) for toast in app._notifications]


def asking(app: MonitorApp) -> list[Worker[Any]]:
    return [worker for worker in app.workers if worker.group == "control"]


def requests_in(run: RunDirectory) -> list[ControlRequest]:
    return pending(run, attempt=1)


def see_and_answer(builder: RunBuilder, request: ControlRequest, *, ok: bool, message: str) -> None:
    """What rank 0 writes about a request."""
    stamp: dict[str, Any] = builder.stamp()
    builder.put(events.Request(**stamp, id=request.id, action=request.action, issuer=request.issuer))
    builder.put(events.Answer(**stamp, id=request.id, ok=ok, message=message))
    builder.flush()


async def question(app: MonitorApp, pilot: Pilot[None], key: str) -> ControlScreen:
    await pilot.press(key)
    await wait_until(lambda: isinstance(app.screen, ControlScreen), pilot)
    assert isinstance(app.screen, ControlScreen)
    return app.screen


def change(heard: Heard, **fields: Any) -> Heard:
    return Heard(**{name: getattr(heard, name) for name in Heard.__slots__} | fields)


@pytest.mark.parametrize(
    ("heard", "says", "severity"),
    [
        (
            change(RUNNING, answers=(events.Answer(v=1, t=0, m=0, id="abc", ok=True, message="saved at step 7"),)),
            "save now: saved at step 7",
            "information",
        ),
        (
            change(RUNNING, answers=(events.Answer(v=1, t=0, m=0, id="abc", ok=False, message="disk \x1b[2Jfull"),)),
            "save now was refused: disk full",
            "error",
        ),
        (change(RUNNING, attempt=2), "save now: attempt 1 ended before it answered", "warning"),
        (change(RUNNING, status=Status("failed")), "save now: the run failed before it answered", "warning"),
        (change(RUNNING, now_s=1001.0), "save now: nobody answered within 1 h 00 m; it has expired", "warning"),
    ],
)  # fmt: skip
def test_each_end_of_a_request_is_said_once(heard: Heard, says: str, severity: str) -> None:
    requests = Requests()
    requests.add(ASKED)
    assert requests.take(RUNNING) == []
    (end,) = requests.take(heard)
    assert (end.text, end.severity) == (says, severity)
    assert requests.take(heard) == []


def test_a_request_that_was_seen_is_said_once_and_still_waits() -> None:
    requests = Requests()
    requests.add(ASKED)
    seen = change(RUNNING, requests=(events.Request(v=1, t=0, m=0, id="abc", action="save"),))
    assert len(requests.take(seen)) == 1
    assert requests.take(seen) == []
    answer = events.Answer(v=1, t=0, m=0, id="abc", ok=True)
    assert [end.text for end in requests.take(change(seen, answers=(answer,)))] == ["save now: done"]


def test_the_answer_to_somebody_elses_request_is_not_ours() -> None:
    requests = Requests()
    requests.add(ASKED)
    assert requests.take(change(RUNNING, answers=(events.Answer(v=1, t=0, m=0, id="xyz", ok=True),))) == []


def test_without_a_keeper_the_request_is_a_file_that_the_ranks_read(live_run: RunBuilder) -> None:
    asked = LocalControl(live_run.run).ask("save", now_s=50.0)
    (request,) = requests_in(live_run.run)
    assert (request.id, request.action, request.attempt) == (asked.id, "save", 1)
    assert request.issuer.startswith("dpo-tui (")


def test_with_a_keeper_the_request_goes_through_it(
    live_run: RunBuilder, eventually: Callable[..., Any]
) -> None:
    command = [sys.executable, "-m", "dpo_daemon.keeper", str(live_run.run.path), "--linger", "0"]
    with subprocess.Popen(command) as keeper:
        try:
            eventually(lambda: of_run(live_run.run), "the keeper listens")
            asked = LocalControl(live_run.run).ask("evaluate", now_s=50.0)
            (request,) = requests_in(live_run.run)
            assert (request.id, request.action, asked.expires_s) == (
                asked.id,
                "evaluate",
                50.0 + EXPIRES_IN_S,
            )
            end = HostExit(host="node1", code=0, ended=0.0)
            live_run.attempt.exit_file("node1").write_text(json.dumps({"host": end.host, "ended": 0.0}))
            said = f"request {request.id}: evaluate by dpo-tui"
            assert said in live_run.run.keeper_log.read_text(), "the keeper wrote it, not this process"
            if of_run(live_run.run) is not None:
                with pytest.raises((TelemetryError, TuiError), match=r"has ended|no keeper answered"):
                    LocalControl(live_run.run).ask("save", now_s=50.0)
        finally:
            keeper.terminate()
            keeper.wait(20)
    assert len(requests_in(live_run.run)) == 1


def test_an_ended_run_and_a_folder_of_somebody_else_refuse(live_run: RunBuilder) -> None:
    control = LocalControl(live_run.run)
    assert control.refusal() == ""
    # Modes mean nothing to root, who may run the tests; nobody can enter a file.
    live_run.run.control_dir.rmdir()
    live_run.run.control_dir.write_text("")
    assert "cannot be written by you" in control.refusal()
    with pytest.raises(TuiError, match="cannot be written by you"):
        control.ask("stop", now_s=0.0)
    live_run.attempt.exit_file("node1").write_text("{}")
    assert "has ended" in control.refusal()


@pytest.mark.parametrize("name", SCREENS)
async def test_every_screen_asks_and_a_no_asks_nothing(live_run: RunBuilder, name: ScreenName) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press(str(SCREENS.index(name) + 1))
        for key, wish in WISH_KEYS.items():
            asks = await question(app, pilot, key)
            assert asks.wish == wish
            assert app.focused is asks.query_one("#no", Button)
            await pilot.press({"stop": "enter", "save": "n", "evaluate": "escape"}[wish])
            await wait_until(lambda: not isinstance(app.screen, ControlScreen), pilot)
        assert isinstance(app.screen, RunScreen)
        assert name == app.screen.NAME
        assert told(app) == []
    assert requests_in(live_run.run) == []


@pytest.mark.parametrize(("key", "wish"), WISH_KEYS.items())
async def test_a_yes_is_followed_to_its_answer(live_run: RunBuilder, key: str, wish: Wish) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await question(app, pilot, key)
        await pilot.press("y")
        await wait_until(lambda: any("asked; waiting for the run" in text for text in told(app)), pilot)
        (request,) = requests_in(live_run.run)
        assert request.action == wish
        see_and_answer(live_run, request, ok=wish != "evaluate", message="no pairs are held out")
        await wait_until(lambda: any("no pairs are held out" in text for text in told(app)), pilot)
        severities = {toast.severity for toast in app._notifications if "held out" in str(toast.message)}
    assert severities == {"error" if wish == "evaluate" else "information"}


async def test_a_key_that_is_pressed_twice_asks_once_and_another_run_takes_the_question_away(
    live_run: RunBuilder,
) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        app.action_ask("save")
        app.action_ask("save")
        await wait_until(lambda: isinstance(app.screen, ControlScreen), pilot)
        await wait_until(lambda: sum(not worker.is_finished for worker in asking(app)) == 1, pilot)
        assert sum(isinstance(screen, ControlScreen) for screen in app.screen_stack) == 1
        await app.open_run(DirectorySource(live_run.run), "again")
        await drawn(app, pilot)
        assert not isinstance(app.screen, ControlScreen)
        assert all(worker.is_finished for worker in asking(app))
    assert requests_in(live_run.run) == []


async def test_an_asking_that_breaks_is_said_and_ends_nothing(live_run: RunBuilder) -> None:
    class Broken(LocalControl):
        def refusal(self) -> str:
            raise RuntimeError("loop\x1b]0;owned\x07 in a path")

    app = MonitorApp(DirectorySource(live_run.run), "run", control=Broken(live_run.run))
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press("C")
        await wait_until(lambda: "loop in a path" in told(app), pilot)
        assert app.is_running
    assert app.failure is None


async def test_a_click_answers_too(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(40, 12)) as pilot:
        await drawn(app, pilot)
        await question(app, pilot, "C")
        await pilot.click("#yes")
        await wait_until(lambda: requests_in(live_run.run), pilot)


async def test_a_finished_run_offers_nothing_and_says_why(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run(max_steps=2)
    builder.train(2)
    builder.exit()
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press("S")
        await wait_until(lambda: told(app), pilot)
        assert told(app) == ["stop with checkpoint: the run has finished; nobody is there to answer"]
        assert not isinstance(app.screen, ControlScreen)
        titles = [command.title for command in Commands(app.screen).commands()]
    assert "Save now" not in titles
    assert requests_in(builder.run) == []


async def test_the_palette_offers_them_while_the_run_lives(live_run: RunBuilder) -> None:
    app = monitor(live_run)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press("ctrl+p")
        await wait_until(lambda: isinstance(app.screen, CommandPalette), pilot)
        await pilot.press(*"evaluate")
        hits = app.screen.query_one(CommandList)
        await wait_until(lambda: hits.option_count == 1 and hits.highlighted == 0, pilot)
        await pilot.press("enter")
        await wait_until(lambda: isinstance(app.screen, ControlScreen), pilot)


async def test_a_record_has_nobody_to_ask(live_run: RunBuilder) -> None:
    app = MonitorApp(DirectorySource(live_run.run), live_run.run.name, clock=lambda: live_run.now_s)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await pilot.press("S")
        await wait_until(lambda: told(app), pilot)
        assert "this is a record" in told(app)[0]


async def test_the_question_says_what_will_happen(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run()
    builder.phase("load")
    builder.flush()
    app = monitor(builder)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        assert app.snapshot is not None
        assert "without a checkpoint" in consequences("stop", app.snapshot)[0]
        assert "after its first step" in consequences("save", app.snapshot)[1]
    builder.train(3)
    builder.flush()
    app = monitor(builder, later_s=100.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        assert app.snapshot is not None
        assert "checkpoints/ of 20261124-0312-demo" in consequences("stop", app.snapshot)[1]
        assert "perhaps nobody answers" in consequences("save", app.snapshot)[-1]


class Alone(App[None]):
    """The question over nothing: the screens below it have pictures of their own."""

    def on_mount(self) -> None:
        self.register_theme(DECK)
        self.theme = DECK.name
        name = "20261124-0312-demo"
        snapshot = Snapshot(name=name, now_s=0.0, link="live", status=Status("hung"), step=120)
        self.push_screen(ControlScreen("stop", snapshot))


@pytest.mark.parametrize(
    "size", [(40, 12), (80, 24), (120, 40), (240, 70)], ids=["40x12", "80x24", "120x40", "240x70"]
)
def test_the_question_looks_as_it_did(size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(Alone(), terminal_size=size)
