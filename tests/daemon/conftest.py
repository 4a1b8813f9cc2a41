"""Real daemons in a home of their own; the job is `standin_job.py` under the trainer's name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from dpo_telemetry import events
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

STANDIN = Path(__file__).with_name("standin_job.py")
STANDIN_REHEARSAL = Path(__file__).with_name("standin_rehearsal.py")
PROFILE = """\
name = "tiny"
description = "A profile for tests"
[model]
base = "nobody/tiny-model"
"""


@dataclass
class Home:
    """Where one test's daemons live."""

    path: Path
    timeout_s: float = 120.0
    """For one command."""

    @property
    def runs_dir(self) -> Path:
        return self.path / "runs"

    @property
    def profile(self) -> Path:
        return self.path / "tiny.toml"

    def daemon(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """`dpo-daemon` as a user runs it."""
        return subprocess.run(
            [sys.executable, "-m", "dpo_daemon", *map(str, arguments)],
            env={**os.environ, **variables},
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=self.timeout_s,
            check=False,
        )

    def start(self, *arguments: str, **variables: str) -> RunDirectory:
        """A run with the stand-in job, its keeper answering."""
        result = self.daemon("start", "--profile", self.profile, "--json", *arguments, **variables)
        assert result.returncode == 0, result.stderr
        return RunDirectory(Path(json.loads(result.stdout)["path"]))

    def new_run(self) -> RunDirectory:
        """A run directory with one attempt that nobody has started."""
        run = create_run(self.runs_dir, "tiny")
        create_attempt(run, PROFILE, b"{}")
        return run

    @contextlib.contextmanager
    def keeper(self, run: RunDirectory, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A keeper as a child of the test, asked to end with the block."""
        with subprocess.Popen(
            [sys.executable, "-m", "dpo_daemon.keeper", str(run.path), *arguments]
        ) as keeper:
            try:
                yield keeper
            finally:
                keeper.terminate()
        assert keeper.returncode == 0

    def processes(self) -> list[psutil.Process]:
        """What runs on behalf of this home: it carries the home's path in its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get("DPO_TEST_HOME") == str(self.path):
                    found.append(process)
        return found


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Short, because socket addresses are."""
    with tempfile.TemporaryDirectory(prefix="dpo-", dir="/tmp") as folder:
        home = Home(Path(folder))
        package = home.path / "standin" / "dpo_trainer"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        shutil.copy(STANDIN, package / "__main__.py")
        (package / "rehearsal").mkdir()
        (package / "rehearsal" / "__init__.py").touch()
        shutil.copy(STANDIN_REHEARSAL, package / "rehearsal" / "__main__.py")
        home.profile.write_text(PROFILE)
        (home.path / "runtime").mkdir(mode=0o700)
        monkeypatch.setenv("DPO_TEST_HOME", folder)
        monkeypatch.setenv("DPO_RUNS_DIR", str(home.runs_dir))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home.path / "runtime"))
        monkeypatch.setenv("XDG_STATE_HOME", str(home.path / "state"))
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        yield home
        for process in home.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def ended(eventually: Callable[..., Any]) -> Callable[[RunDirectory], HostExit]:
    """Waits for the end of a run's newest attempt, and tells how it ended."""

    def wait(run: RunDirectory) -> HostExit:
        attempt = run.attempts()[-1]
        eventually(attempt.ended, f"the end of {run.name}")
        (file,) = attempt.path.glob("exit-*.json")
        return msgspec.json.decode(file.read_bytes(), type=HostExit)

    return wait


def read_events(attempt: Attempt, writer: str) -> list[events.AnyEvent]:
    """Events of one file; `writer` may be a pattern that fits one."""
    (file,) = attempt.events_dir.glob(f"{writer}.jsonl")
    decoded = [events.decode(line) for line in file.read_bytes().splitlines()]
    return [event for event in decoded if event is not None]


@pytest.fixture
def events_of() -> Callable[[Attempt, str], list[events.AnyEvent]]:
    return read_events
