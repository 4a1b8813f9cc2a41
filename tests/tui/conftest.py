"""Run directories as real processes write them, at a fixed time."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from dpo_telemetry import events
from dpo_telemetry.events import Event
from dpo_telemetry.identity import boot_id
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.writer import EventWriter
from dpo_tui.app import MonitorApp
from dpo_tui.signs import UNICODE, Signs

START_S = 1_790_000_000.0
STEP_S = 6.8
PLANNED = {
    "policy_weights": 134_000_000,
    "adapters": 9_770_000,
    "gradients": 19_540_000,
    "optimizer_states": 39_080_000,
}
MEASURED = {
    "policy_weights": 131_400_000,
    "adapters": 9_770_000,
    "gradients": 19_540_000,
    "optimizer_states": 39_080_000,
}
Metrics = dict[str, float]


def metrics_at(step: int) -> Metrics:
    """A DPO run that learns: the same numbers every time."""
    margin = 0.9 * (1 - math.exp(-(step - 1) / 60)) + 0.05 * math.sin((step - 1) * 1.7)
    return {
        "loss": math.log1p(math.exp(-margin)) + 0.02 * math.sin(step * 2.3),
        "grad_norm": 2.1 + 0.4 * math.sin(step),
        "rewards/chosen": 0.35 * margin,
        "rewards/rejected": -0.65 * margin,
        "rewards/margins": margin,
        "rewards/accuracies": min(1.0, 0.5 + margin / 2),
        "logps/chosen": -211.37 - margin,
        "logps/rejected": -240.11 + margin,
    }


class RunBuilder:
    """Writes a run directory through the real writer, at times of its own choosing."""

    def __init__(self, runs_dir: Path, name: str = "demo", max_steps: int = 300) -> None:
        self.run: RunDirectory = create_run(runs_dir, name)
        plan = {"per_gpu": [{"rank": 0, "phases": {"backward": PLANNED, "step": PLANNED}}]}
        self.attempt = create_attempt(self.run, "", json.dumps(plan).encode())
        self.writer = EventWriter(self.attempt.event_file("rank-00000"))
        self.now_s = START_S
        self.put(
            events.Start(
                **self.stamp(), role="rank", host="node1", pid=4321, boot_id=boot_id(), process_started=START_S,
                rank=0, world_size=1, device="cpu", max_steps=max_steps,
            )
        )  # fmt: skip

    def stamp(self) -> dict[str, Any]:
        return {"v": events.SCHEMA_VERSION, "t": self.now_s, "m": self.now_s - START_S}

    def put(self, event: Event) -> None:
        self.writer.put(event)

    def phase(self, name: events.PhaseName, state: str = "begin", **fields: object) -> None:
        self.put(events.Phase(**self.stamp(), name=name, state=state, **fields))  # type: ignore[arg-type]

    def step(self, step: int, **changed: float) -> None:
        self.now_s += STEP_S
        metrics = metrics_at(step) | {name.replace("__", "/"): value for name, value in changed.items()}
        self.put(
            events.Step(
                **self.stamp(), step=step, tokens=2048, pairs=4, times_s={"step": STEP_S},
                metrics={name: events.to_number(value) for name, value in metrics.items()},
            )
        )  # fmt: skip

    def evaluate(self, step: int) -> None:
        metrics = {f"eval_{name}": events.to_number(value) for name, value in metrics_at(step).items()}
        self.put(events.Eval(**self.stamp(), step=step, metrics=metrics, pairs=24))

    def memory(self, **components: int) -> None:
        self.put(
            events.Memory(
                **self.stamp(), phase="train", components=components or MEASURED, rss_bytes=1_480_000_000
            )
        )

    def train(self, last: int, *, nan_at: int | None = None) -> None:
        """Train from step 1 to `last` with an evaluation every 50 steps."""
        self.phase("train")
        for step in range(1, last + 1):
            self.step(step, **({"loss": math.nan} if step == nan_at else {}))
            if step % 50 == 0:
                self.evaluate(step)
        self.memory()

    def log(self, text: str) -> None:
        with self.attempt.log_file(0).open("a") as file:
            file.write(text)

    def exit(self, code: int = 0, reason: str = "") -> None:
        self.put(events.Exit(**self.stamp(), role="rank", rank=0, code=code, reason=reason))

    def flush(self) -> None:
        assert self.writer.flush()


@pytest.fixture
def new_run(tmp_path: Path) -> Iterator[Callable[..., RunBuilder]]:
    builders: list[RunBuilder] = []

    def make(**options: Any) -> RunBuilder:
        builder = RunBuilder(tmp_path / f"runs{len(builders)}", **options)
        # The name carries the time of day, which no picture must depend on.
        fixed = builder.run.path.with_name("20261124-0312-demo")
        info = json.loads(builder.run.run_file.read_text()) | {"name": fixed.name}
        builder.run.run_file.write_text(json.dumps(info))
        builder.run.path.rename(fixed)
        builder.run = RunDirectory(fixed)
        builder.attempt = builder.run.attempt(1)
        builders.append(builder)
        return builder

    yield make
    for builder in builders:
        builder.writer.close()


@pytest.fixture
def live_run(new_run: Callable[..., RunBuilder]) -> RunBuilder:
    """120 of 300 steps, still training."""
    builder = new_run()
    builder.log("loading SmolLM2-135M-Instruct\r\n")
    builder.train(120)
    for step in range(101, 121):
        builder.log(f"step {step}/300  loss {metrics_at(step)['loss']:.4f}\n")
    builder.flush()
    return builder


def monitor(builder: RunBuilder, later_s: float = 2.0, *, signs: Signs = UNICODE) -> MonitorApp:
    """The window over a run, some seconds after the last that was written; its clock stands."""
    frozen = builder.now_s + later_s
    return MonitorApp(DirectorySource(builder.run), builder.run.name, clock=lambda: frozen, signs=signs)


def screen_text(app: MonitorApp) -> str:
    """What is on the screen, line by line."""
    return "\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips())


async def wait_until(condition: Callable[[], object], pilot: Pilot[None], deadline_s: float = 10.0) -> None:
    """Poll until the condition holds; fails by name when it never does."""
    ends = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends, "the condition did not come true in time"
        await asyncio.sleep(0.01)
    await pilot.pause()


async def drawn(app: MonitorApp, pilot: Pilot[None]) -> None:
    """Until the first snapshot with charts is on the screen."""
    await wait_until(lambda: app.snapshot is not None and app.snapshot is app.drawn, pilot)
