"""The whole chain for real: keeper, agent, trainer, ZeroMQ, monitor, a killed keeper, replay."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.trainer.conftest import FOREIGN_WARNINGS, make_profile, model_folder
from textual.pilot import Pilot

from dpo_daemon.summary import read_summary
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Profile
from dpo_telemetry.reader.status import Status
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.app import MonitorApp
from dpo_tui.snapshot import Snapshot
from dpo_tui.sources import open_run

__all__ = ["make_profile", "model_folder"]

pytestmark = [pytest.mark.train, *(pytest.mark.filterwarnings(warning) for warning in FOREIGN_WARNINGS)]

STEPS = 150
"""Long enough for a keeper to be killed and started again in the middle."""
DEADLINE_S = 120.0


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs, sockets and state of one test; short, because socket addresses are."""
    with tempfile.TemporaryDirectory(prefix="dpo-", dir="/tmp") as folder:
        (Path(folder) / "runtime").mkdir(mode=0o700)
        monkeypatch.setenv("DPO_RUNS_DIR", f"{folder}/runs")
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{folder}/runtime")
        monkeypatch.setenv("XDG_STATE_HOME", f"{folder}/state")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        yield Path(folder)
        command("stop", "--now")


def command(*arguments: str, module: str = "dpo_daemon") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


async def until(pilot: Pilot[None], app: MonitorApp, seen: Callable[[Snapshot], bool], what: str) -> Snapshot:
    """The first snapshot on the screen that `seen` accepts."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while app.drawn is None or not seen(app.drawn):
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"never on the screen: {what}; last was {app.drawn}")
        await pilot.pause(0.05)
    return app.drawn


def keeper_of(run: RunDirectory) -> int:
    summary = read_summary(run)
    assert summary is not None
    assert summary.keeper is not None
    return summary.keeper.pid


async def test_a_run_is_watched_loses_its_keeper_is_served_again_ends_well_and_replays(
    home: Path, make_profile: Callable[..., Profile]
) -> None:
    profile = make_profile(train={"max_steps": STEPS}, eval={"every_steps": 50}, save={"every_steps": 50})
    (home / "tiny.toml").write_text(to_toml(msgspec.structs.replace(profile, name="tiny"), comments=False))
    started = command("start", "--profile", str(home / "tiny.toml"), "--json")
    assert started.returncode == 0, started.stderr
    run = RunDirectory(Path(json.loads(started.stdout)["path"]))

    app = MonitorApp(open_run(run), run.name)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, app, lambda s: s.link == "live" and s.step >= 2, "a step, through the keeper")
        os.kill(keeper_of(run), signal.SIGKILL)
        lost = await until(pilot, app, lambda s: s.link != "live", "that the keeper is lost")
        assert not lost.status.ended
        on = await until(
            pilot, app, lambda s: s.link != "live" and s.step > lost.step, "a step without keeper"
        )
        kept = await asyncio.to_thread(command, "keep", run.name)
        assert kept.returncode == 0, kept.stderr
        again = await until(pilot, app, lambda s: s.link == "live" and s.step > on.step, "a new keeper")
        assert again.max_steps == STEPS
        end = await until(pilot, app, lambda s: s.status.ended, "the end")
        assert end.status == Status("finished", "finished")
        assert end.step == STEPS
        charts = end.charts
        assert charts is not None
        (line, evaluated) = charts["loss"]
        assert line.steps.tolist() == list(range(1, STEPS + 1))
        assert evaluated.steps.tolist() == [0, 50, 100, 150]
        # A tiny model learns a dozen pairs by heart, and is told so.
        told = {alert.code for alert in end.alerts}
        assert "over_optimisation" in told
        assert "critical" not in {alert.severity for alert in end.alerts}
        await pilot.press("q")
    assert app.return_code == 0

    replayed = command("replay", "--headless", "--json", str(run.path), module="dpo_tui")
    assert replayed.returncode == 1, replayed.stderr
    result = json.loads(replayed.stdout)
    assert (result["format"], result["verdict"], result["last_step"]) == ("run_directory", "alerts", STEPS)
    assert {alert["code"] for alert in result["alerts"]} == told, "live and afterwards the same"
    assert (result["superseded_rows"], result["lines_not_understood"]) == (0, 0)
    assert result["metrics"]["loss"]["count"] == STEPS
    assert result["metrics"]["loss"]["last"] < result["metrics"]["loss"]["first"]
    assert (run.adapter_dir / "adapter_model.safetensors").stat().st_size > 10_000
