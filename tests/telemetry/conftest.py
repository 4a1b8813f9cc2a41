"""Runs of this room's tests, in folders and a user's home of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_telemetry import events
from dpo_telemetry.events import Event
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory

START_S = 1_790_000_000.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, so that no log or register of the user is touched."""
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(home / variable.lower()))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DPO_RUNS_DIR", raising=False)
    return home


class Lines:
    """Event lines at times of the test's choosing."""

    def __init__(self, now_s: float = START_S) -> None:
        self.now_s = now_s

    def stamp(self) -> events.Stamp:
        return events.Stamp(v=events.SCHEMA_VERSION, t=self.now_s, m=self.now_s - START_S)

    def start(
        self, rank: int = 0, *, resumed_from_step: int | None = None, max_steps: int | None = None
    ) -> bytes:
        return events.encode(
            events.Start(
                **self.stamp(), role="rank", host="node1", pid=4321 + rank, boot_id="boot",
                process_started=START_S, rank=rank, world_size=2, resumed_from_step=resumed_from_step,
                max_steps=max_steps,
            )
        )  # fmt: skip

    def step(self, step: int, step_time_s: float | None = None, **metrics: float) -> bytes:
        named = {name.replace("__", "/"): events.to_number(value) for name, value in metrics.items()}
        times_s = {} if step_time_s is None else {"step": step_time_s}
        return events.encode(events.Step(**self.stamp(), step=step, metrics=named, times_s=times_s))

    def evaluation(self, step: int, **metrics: float) -> bytes:
        named = {name.replace("__", "/"): events.to_number(value) for name, value in metrics.items()}
        return events.encode(events.Eval(**self.stamp(), step=step, metrics=named))

    def phase(self, name: events.PhaseName, state: str = "begin") -> bytes:
        return self.event(events.Phase(**self.stamp(), name=name, state=state))  # type: ignore[arg-type]

    def heartbeat(self) -> bytes:
        return self.event(events.Heartbeat(**self.stamp()))

    def exit(self, code: int | None = 0, reason: str = "", rank: int = 0) -> bytes:
        return self.event(events.Exit(**self.stamp(), role="rank", rank=rank, code=code, reason=reason))

    @staticmethod
    def event(event: Event) -> bytes:
        return events.encode(event)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[], RunDirectory]:
    """Makes a run with a first attempt that holds no events yet."""

    def make() -> RunDirectory:
        run = create_run(tmp_path / "runs", "demo")
        create_attempt(run, "", b"{}")
        return run

    return make
