"""How long the window takes to open a finished run of a million steps.

    python benchmarks/open_large.py [--json] [--quick] [--record]

A process of its own opens the run in the real app, drawn for 200 x 60 without a terminal. Times
are from the start of the process, imports included: until the first charts are on the screen, and
until all is read, judged and drawn. The second time the run comes from its index.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from diagnosis import QUICK_STEPS, STEPS, write_run
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunDirectory
from harness import Figure, main

FIRST_GOAL_S, ALL_GOAL_S, AGAIN_GOAL_S, MEMORY_GOAL_MB = 0.5, 2.0, 0.5, 400.0
ROUNDS = 3
SIZE = (200, 60)
INDEX_DEADLINE_S = 60.0


def open_once(path: Path, began_s: float) -> dict[str, float]:
    """Open the run as `dpo-tui replay` does; what it took since `began_s` (monotonic, seconds)."""
    from dpo_telemetry.reader.source import DirectorySource
    from dpo_tui.app import MonitorApp

    marks: dict[str, float] = {}

    class Watched(MonitorApp):
        """Notes when charts are on the screen, and leaves when everything is."""

        def draw_frame(self) -> None:
            super().draw_frame()
            if self.drawn is not None and self.drawn.charts:
                self.call_after_refresh(self._note, self.drawn.reading is None)

        def _note(self, whole: bool) -> None:
            now_s = time.monotonic() - began_s
            marks.setdefault("first_s", now_s)
            if whole and "all_s" not in marks:
                marks["all_s"] = now_s
                self.exit()

    run = RunDirectory(path)
    app = Watched(DirectorySource(run), run.name)
    app.run(headless=True, size=SIZE)
    if app.failure is not None:
        raise app.failure
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return marks | {"rss_mb": peak_kb / 1024, "worker_rss_mb": workers_kb / 1024}


def opened(path: Path, home: Path) -> dict[str, float]:
    """One opening by a process of its own, with the caches under `home`."""
    environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_STATE_HOME": str(home)}
    command = [sys.executable, __file__, "--child", str(path), str(time.monotonic())]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def measure(quick: bool) -> dict[str, Figure]:
    """The best of some rounds, each with an empty cache and then with what the first left there."""
    steps, rounds = (QUICK_STEPS, 1) if quick else (STEPS, ROUNDS)
    first: list[dict[str, float]] = []
    again: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        path = write_run(Path(name), steps)
        ended = HostExit(host="node1", code=0, signal="", ended=time.time())
        RunDirectory(path).attempt(1).exit_file("node1").write_bytes(msgspec.json.encode(ended))
        for at in range(rounds):
            home = Path(name) / f"home-{at}"
            home.mkdir()
            first.append(opened(path, home))
            again.append(opened(path, home))
    figures: dict[str, Figure] = {}
    for label, found, key, goal in (
        ("first_charts_s", first, "first_s", FIRST_GOAL_S),
        ("everything_s", first, "all_s", ALL_GOAL_S),
        ("everything_again_s", again, "all_s", AGAIN_GOAL_S),
        ("rss_mb", first, "rss_mb", MEMORY_GOAL_MB),
        ("worker_rss_mb", first, "worker_rss_mb", None),
        ("rss_again_mb", again, "rss_mb", MEMORY_GOAL_MB),
    ):
        best = min(one[key] for one in found)
        figures[f"{label}_of_{steps}_steps"] = Figure(
            value=round(best, 3), goal=None if quick else goal, peer={}
        )
    return figures


def child(arguments: list[str]) -> dict[str, Any]:
    """What the measured process does; it waits for the index, which a thread writes."""
    import threading

    found = open_once(Path(arguments[0]), float(arguments[1]))
    for thread in threading.enumerate():
        if thread.name == "index":
            thread.join(INDEX_DEADLINE_S)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.stdout.write(json.dumps(child(sys.argv[2:])) + "\n")
    else:
        main("open_large", measure, ("textual", "numpy", "msgspec"))
