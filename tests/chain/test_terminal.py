"""The real program in a real terminal: tmux holds it, presses its keys and reads its screen."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpo_telemetry import events
from dpo_telemetry.identity import boot_id
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.writer import EventWriter

pytestmark = pytest.mark.system("tmux")

START_S = 1_790_000_000.0
STEPS = 40
TABS = "1 overview 2 metrics"
"""On every screen, and hidden by the help."""


class Terminal:
    """One tmux server with one window of 80 x 24."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux"
        self._home = folder
        ours = {
            key: value for key, value in os.environ.items() if not key.startswith(("TMUX", "XDG", "NO_COLOR"))
        }
        self._environment = ours | {"HOME": str(folder), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        self.run(
            "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=$ ", "sh"
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """Output of a tmux command."""
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), *arguments],
            env=self._environment, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return done.stdout

    def type(self, text: str) -> None:
        """Enter a command line."""
        self.run("send-keys", "-l", text)
        self.run("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names."""
        self.run("send-keys", *keys)

    def screen(self) -> str:
        """What is on the screen."""
        return self.run("capture-pane", "-p")

    def alternate(self) -> bool:
        """Whether a full-screen program has the terminal."""
        return self.run("display-message", "-p", "#{alternate_on}").strip() == "1"

    def mouse(self) -> bool:
        """Whether a program asked for the mouse."""
        return self.run("display-message", "-p", "#{mouse_any_flag}").strip() == "1"

    def cursor(self) -> bool:
        """Whether the cursor is shown."""
        return self.run("display-message", "-p", "#{cursor_flag}").strip() == "1"


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="dpo-", dir="/tmp") as folder:
        terminal = Terminal(Path(folder))
        yield terminal
        terminal.run("kill-server")


def stamp(step: int) -> dict[str, Any]:
    return {"v": events.SCHEMA_VERSION, "t": START_S + step, "m": float(step)}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A finished run whose loss was NaN once."""
    run = create_run(tmp_path / "runs", "demo")
    attempt = create_attempt(run, "", json.dumps({}).encode())
    writer = EventWriter(attempt.event_file("rank-00000"))
    writer.put(
        events.Start(
            **stamp(0), role="rank", host="node1", pid=1, boot_id=boot_id(), process_started=START_S,
            rank=0, world_size=1, device="cpu", max_steps=STEPS,
        )
    )  # fmt: skip
    for step in range(1, STEPS + 1):
        loss = math.nan if step == 20 else 0.7 - step / 100
        metrics = {"loss": events.to_number(loss), "rewards/margins": step / 50, "rewards/accuracies": 0.8}
        writer.put(events.Step(**stamp(step), step=step, times_s={"step": 1.0}, metrics=metrics))
    writer.put(events.Exit(**stamp(STEPS), role="rank", rank=0, code=0))
    assert writer.flush()
    writer.close()
    return run


def test_a_run_is_watched_in_a_terminal_that_is_given_back_as_it_was(
    terminal: Terminal, run: RunDirectory, eventually: Callable[..., Any]
) -> None:
    folder = run.path.parent
    command = shlex.join([sys.executable, "-m", "dpo_tui", "attach", str(run.path)])
    (folder / "watch.sh").write_text(f"stty -g > before\n{command}\necho code $?\nstty -g > after\n")
    terminal.type(f"cd {shlex.quote(str(folder))} && clear && . ./watch.sh")

    eventually(
        lambda: run.name in terminal.screen() and "loss" in terminal.screen(), "the run and its charts"
    )
    screen = terminal.screen()
    assert terminal.alternate()
    assert "finished" in screen
    assert "×" in screen
    assert "1 critical" in screen
    terminal.press("4")
    eventually(lambda: "numbers overflow" in terminal.screen(), "the alerts and their cause")
    terminal.press("?")
    eventually(lambda: TABS not in terminal.screen() and "  Alerts" in terminal.screen(), "the help")
    terminal.press("Escape")
    eventually(lambda: TABS in terminal.screen(), "the alerts again")
    terminal.press("q")

    eventually(lambda: "code 0" in terminal.screen(), "the shell, and the exit code")
    assert not terminal.alternate()
    assert not terminal.mouse()
    assert terminal.cursor()
    before, after = (folder / name for name in ("before", "after"))
    eventually(lambda: after.exists() and after.read_text(), "the modes of the terminal")
    assert after.read_text() == before.read_text()
