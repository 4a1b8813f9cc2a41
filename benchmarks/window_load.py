"""What the window costs while a large run streams, and whether it grows over a day.

    python benchmarks/window_load.py [--json] [--quick] [--record]

64 ranks write 10 events a second each; a process of its own follows them in the real app, drawn for
200 x 60 without a terminal. First nobody touches it: its CPU time over wall time is its share of a
core. Then keys are pressed, and each is timed until what it changed is drawn. The day is simulated:
a step every ten seconds, a beat of each rank every minute, a snapshot for each step, as fast as they
can be made.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from diagnosis import healthy_rows
from dpo_telemetry import events
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from harness import Figure, main

RANKS, EVENTS_PER_S = 64, 10
SIZE = (200, 60)
CPU_GOAL_PERCENT, KEY_GOAL_MS, GROWTH_GOAL_MB = 10.0, 50.0, 20.0
KEYS = ("plus", "minus", "s", "tab", "x", "3", "7", "1", "2")
"""Each changes something on the screen, from the metrics screen back to it."""
SETTLE_S = 3.0
DAY_STEPS = 8640
BEATS_PER_STEP = RANKS // 6
PLAN = b"{}"


def start_of(rank: int, now_s: float) -> bytes:
    """The first line of a rank."""
    return events.encode(
        events.Start(
            v=1, t=now_s, m=0.0, role="rank", host="node1", pid=1000 + rank, boot_id="b", process_started=now_s,
            rank=rank, world_size=RANKS, max_steps=100_000,
        )
    )  # fmt: skip


def new_run(folder: Path) -> RunDirectory:
    """A run of all ranks that has begun."""
    run = create_run(folder, "load")
    attempt = create_attempt(run, "[loss]\nbeta = 0.1\n", PLAN)
    for rank in range(RANKS):
        attempt.event_file(f"rank-{rank:05d}").write_bytes(start_of(rank, time.time()))
    return run


def line_of(rank: int, count: int, row: dict[str, float]) -> bytes:
    """The next line of a rank: steps of rank 0, memory and beats of the others."""
    if rank == 0:
        metrics: dict[str, events.Number] = dict(row)
        return events.encode(
            events.Step(**events.stamp(), step=count, metrics=metrics, tokens=2048, times_s={"step": 0.1})
        )
    if count % 2:
        return events.encode(events.Heartbeat(**events.stamp(), phase="train", step=count))
    parts = {"policy_weights": 5 << 30, "adapters": 1 << 30}
    return events.encode(
        events.Memory(
            **events.stamp(), phase="train", components=parts, allocated_bytes=7 << 30,
            peak_allocated_bytes=20 << 30, reserved_bytes=22 << 30, step=count,
        )
    )  # fmt: skip


def stream(run: RunDirectory, ended: threading.Event) -> None:
    """Write what all ranks write, until told to stop."""
    files = [run.attempt(1).event_file(f"rank-{rank:05d}").open("ab", buffering=0) for rank in range(RANKS)]
    rows = healthy_rows(1_000_000)
    count, began_s = 0, time.monotonic()
    while not ended.wait(max(0.0, began_s + count / EVENTS_PER_S - time.monotonic())):
        count += 1
        row = next(rows)
        for rank, file in enumerate(files):
            file.write(line_of(rank, count, row))
    for file in files:
        file.close()


async def watch(path: Path, quiet_s: float, presses: int) -> dict[str, float]:
    """Follow the run; its share of a core when nobody touches it, and how long keys take to be drawn."""
    from dpo_tui.app import MonitorApp

    drawn = asyncio.Event()

    class Watched(MonitorApp):
        """Says when something was drawn."""

        def _display(self, screen: Any, renderable: Any) -> None:
            super()._display(screen, renderable)
            drawn.set()

    run = RunDirectory(path)
    app = Watched(DirectorySource(run), run.name)
    async with app.run_test(size=SIZE) as pilot:
        await asyncio.sleep(SETTLE_S)
        cpu_s, wall_s = time.process_time(), time.monotonic()
        await asyncio.sleep(quiet_s)
        share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
        await pilot.press("2")
        await asyncio.sleep(1.0)
        took_s = []
        for at in range(presses):
            await asyncio.sleep(0.05)
            drawn.clear()
            began_s = time.perf_counter()
            app.simulate_key(KEYS[at % len(KEYS)])
            await asyncio.wait_for(drawn.wait(), 5.0)
            took_s.append(time.perf_counter() - began_s)
        if app.failure is not None:
            raise app.failure
    p50, p99 = np.percentile(took_s, [50, 99])
    return {"cpu_percent": 100 * share, "key_p50_ms": 1000 * float(p50), "key_p99_ms": 1000 * float(p99)}


def day(folder: Path, steps: int) -> dict[str, float]:
    """Resident memory after a quarter of a simulated day and after all of it, megabytes."""
    from dpo_tui.receiver import Receiver

    run = new_run(folder)
    attempt = run.attempt(1)
    receiver = Receiver(DirectorySource(run), run.name)
    rows = healthy_rows(steps)
    marks: dict[str, float] = {}
    for step, row in enumerate(rows, start=1):
        with attempt.event_file("rank-00000").open("ab") as file:
            file.write(line_of(0, step, row))
        for beat in range(BEATS_PER_STEP):
            rank = 1 + (step * BEATS_PER_STEP + beat) % (RANKS - 1)
            with attempt.event_file(f"rank-{rank:05d}").open("ab") as file:
                file.write(line_of(rank, step, row))
        receiver.receive()
        if step in (steps // 4, steps):
            marks["quarter_mb" if step < steps else "day_mb"] = _resident_mb()
    receiver.close()
    return marks


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def measure(quick: bool) -> dict[str, Figure]:
    """All figures."""
    quiet_s, presses, steps = (5.0, 40, 800) if quick else (30.0, 400, DAY_STEPS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, ended = new_run(folder / "runs"), threading.Event()
        writer = threading.Thread(target=stream, args=(run, ended))
        writer.start()
        try:
            watched = _child("watch", str(run.path), str(quiet_s), str(presses), home=folder)
        finally:
            ended.set()
            writer.join()
        grown = _child("day", str(folder / "day"), str(steps), home=folder)
    growth_mb = grown["day_mb"] - grown["quarter_mb"]
    return {
        "cpu_percent_of_a_core": Figure(
            value=round(watched["cpu_percent"], 1), goal=CPU_GOAL_PERCENT, peer={}
        ),
        "key_p99_ms": Figure(value=round(watched["key_p99_ms"], 1), goal=KEY_GOAL_MS, peer={}),
        "key_p50_ms": Figure(value=round(watched["key_p50_ms"], 1), goal=None, peer={}),
        "growth_over_the_last_18_hours_mb": Figure(
            value=round(growth_mb, 1), goal=None if quick else GROWTH_GOAL_MB, peer={}
        ),
    }


def _child(*arguments: str, home: Path) -> dict[str, float]:
    environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_STATE_HOME": str(home)}
    command = [sys.executable, __file__, "--child", *arguments]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def child(what: str, path: Path, *numbers: float) -> dict[str, float]:
    """What a process of its own does."""
    if what == "watch":
        return asyncio.run(watch(path, numbers[0], int(numbers[1])))
    return day(path, int(numbers[0]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, place, *amounts = sys.argv[2:]
        sys.stdout.write(json.dumps(child(kind, Path(place), *map(float, amounts))) + "\n")
    else:
        main("window_load", measure, ("textual", "numpy", "msgspec"))
