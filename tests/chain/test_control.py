"""The window asks a real run for a checkpoint, an evaluation and its end, and is told what came of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.chain.test_chain import DEADLINE_S, command, home, until
from tests.trainer.conftest import FOREIGN_WARNINGS, make_profile, model_folder
from textual.pilot import Pilot

from dpo_profiles.render import to_toml
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.app import MonitorApp
from dpo_tui.control import LocalControl
from dpo_tui.screens.control import ControlScreen
from dpo_tui.sources import open_run

__all__ = ["home", "make_profile", "model_folder"]

pytestmark = [pytest.mark.train, *(pytest.mark.filterwarnings(warning) for warning in FOREIGN_WARNINGS)]

MANY_STEPS = 100_000


async def ask(app: MonitorApp, pilot: Pilot[None], key: str, answer: str) -> None:
    """Press a key, say yes, and wait for the toast with the run's answer."""
    ends = asyncio.get_running_loop().time() + DEADLINE_S
    await pilot.press(key)
    while not isinstance(app.screen, ControlScreen):
        assert asyncio.get_running_loop().time() < ends, "never asked"
        await pilot.pause(0.02)
    await pilot.press("y")
    while not any(answer in str(toast.message) for toast in app._notifications):
        told = [str(toast.message) for toast in app._notifications]
        assert asyncio.get_running_loop().time() < ends, f"never said: {answer}; said {told}"
        await pilot.pause(0.05)


async def test_a_real_run_saves_evaluates_and_stops_when_the_window_asks(
    home: Path, make_profile: Callable[..., Profile]
) -> None:
    profile = make_profile(train={"max_steps": MANY_STEPS}, eval={"every_steps": 0}, save={"every_steps": 0})
    (home / "tiny.toml").write_text(to_toml(msgspec.structs.replace(profile, name="tiny"), comments=False))
    started = command("start", "--profile", str(home / "tiny.toml"), "--json")
    assert started.returncode == 0, started.stderr
    run = RunDirectory(Path(json.loads(started.stdout)["path"]))

    app = MonitorApp(open_run(run), run.name, control=LocalControl(run))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, app, lambda s: s.link == "live" and s.step >= 2, "a step, through the keeper")
        await ask(app, pilot, "C", "save now: saved at step ")
        assert any(run.checkpoints_dir.iterdir())
        await ask(app, pilot, "E", "evaluate now: evaluated at step ")
        await ask(app, pilot, "S", "stop with checkpoint: stopped at step ")
        end = await until(pilot, app, lambda s: s.status.ended, "the end")
        assert end.status.state == "stopped"
        assert 0 < end.step < MANY_STEPS
    assert "by dpo-tui" in run.keeper_log.read_text()
