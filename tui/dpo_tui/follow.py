"""A run as lines of text, as they come, and a summary when it ends. Needs no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click

from dpo_telemetry import events
from dpo_telemetry.events import AnyEvent
from dpo_telemetry.figures import duration, number, size, step_time
from dpo_telemetry.reader.lines import LineReader
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk, Source
from dpo_telemetry.reader.status import Status, status_of
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.text import printable
from dpo_tui.receiver import Clock

POLL_EVERY_S = 0.25
PROGRESS_EVERY_S = 10.0
GIVE_UP_SILENT_S = 120.0
"""A run that neither beats nor ends for so long is not going to tell how it ended."""

FIGURES = (
    ("loss", "loss"),
    ("rewards/margins", "margin"),
    ("rewards/accuracies", "accuracy"),
    ("grad_norm", "grad norm"),
)

DOING: dict[events.PhaseName, str] = {
    "load": "loading",
    "reference": "holding the reference against the policy",
    "train": "training",
    "eval": "evaluating",
    "save": "saving",
}

Print = Callable[[str], None]


def follow(run: RunDirectory, source: Source, *, clock: Clock = time.time, write: Print = click.echo) -> int:
    """Print a run until it ends.

    Returns:
        0 when it ended well and no alert is critical, else 1.
    """
    follower = Follower(write)
    silent_since: float | None = None
    try:
        while True:
            while chunks := source.poll():
                follower.take(chunks)
            status = follower.look(status_of(follower.model, clock()), source.link, source.problem)
            if status.ended:
                break
            silent_since = (silent_since or time.monotonic()) if status.state == "silent" else None
            if silent_since is not None and time.monotonic() - silent_since > GIVE_UP_SILENT_S:
                break
            time.sleep(POLL_EVERY_S)
    finally:
        source.close()
    for line in summary(follower.model, run.path, status):
        write(line)
    critical = any(alert.severity == "critical" for alert in follower.model.alerts)
    return 0 if status.state in ("finished", "stopped") and not critical else 1


@dataclass
class Follower:
    """Turns what a source hands out into lines, each said once."""

    write: Print
    model: RunModel = field(default_factory=RunModel)
    _lines: dict[str, LineReader] = field(default_factory=dict)
    _said: set[tuple[str, str | None]] = field(default_factory=set)
    _state: tuple[str, str] = ("", "")
    _problem: str = ""
    _progress_s: float = 0.0

    def take(self, chunks: list[Chunk]) -> None:
        """Print the events of rank 0 and the alerts that they raise."""
        self.model.apply(chunks)
        for chunk in chunks:
            if chunk.file.endswith("/events/rank-00000.jsonl"):
                reader = self._lines.setdefault(chunk.file, LineReader())
                for event in reader.feed(chunk.data):
                    self._say(event)
        for alert in self.model.alerts:
            if (alert.code, alert.metric) not in self._said:
                self._said.add((alert.code, alert.metric))
                where = f" at step {alert.step}" if alert.step is not None else ""
                self._print(f"{alert.severity}: {alert.code}{where}: {alert.message}")

    def look(self, status: Status, link: str, problem: str = "") -> Status:
        """Print what changed about the run's state and the link to it."""
        if problem and problem != self._problem:
            self._print(f"{problem}; going on from the run directory")
        self._problem = problem
        before, self._state = self._state, (status.state, link)
        if status.state in ("silent", "hung") and before[0] != status.state:
            self._print(f"{status.state}: {status.reason}")
        if link == "lost" and before[1] != "lost":
            self._print("keeper lost; going on from the run directory")
        return status

    def _say(self, event: AnyEvent) -> None:
        match event:
            case events.Step() if event.metrics:
                self._print(self._step_line(event))
            case events.Eval():
                self._print(f"evaluation at step {event.step}   {_figures(event.metrics, 'eval_')}")
            case events.Phase():
                self._say_phase(event)
            case events.Checkpoint():
                kind = "adapter" if event.final else "checkpoint"
                self._print(f"{kind} at step {event.step}   {event.path}   {size(event.size_bytes)}")

    def _step_line(self, event: events.Step) -> str:
        total = self.model.max_steps
        width = len(str(total or event.step))
        head = f"step {event.step:>{width}}" + (f"/{total}" if total else "")
        parts = [head, _figures(event.metrics)]
        if "step" in event.times_s:
            parts.append(step_time(event.times_s["step"]))
        return "   ".join(parts)

    def _say_phase(self, event: events.Phase) -> None:
        """A phase that begins, and now and then how far it is; its end shows in what follows."""
        if event.state == "begin":
            self._print("   ".join(filter(None, (DOING[event.name], event.message))))
        elif event.state == "progress" and (event.message or event.total):
            if time.monotonic() - self._progress_s < PROGRESS_EVERY_S and not event.message:
                return
            self._progress_s = time.monotonic()
            far = (
                f"{event.done or 0:g} of {event.total:g} {event.unit}".rstrip()
                if (event.total or 0) > 1
                else ""
            )
            self._print("   " + "   ".join(filter(None, (far, event.message))))

    def _print(self, line: str) -> None:
        self.write(printable(line))


def summary(model: RunModel, run: Path, status: Status) -> list[str]:
    """Closing lines: how it ended, the held-out margin, the adapter, the verdict, how to replay."""
    why = f": {printable(status.reason)}" if status.reason and status.state != "finished" else ""
    lines = ["", f"{status.state} at step {model.last_step}{_took(model)}{why}"]
    if (margin := _held_out_margin(model)) is not None:
        lines.append(f"held-out margin   {margin}")
    final = next((point for point in reversed(model.checkpoints) if point.final), None)
    if final is not None:
        lines.append(f"adapter           {run / printable(final.path)}")
    lines.append(f"verdict           {_verdict(model)}")
    lines.append(f"replay            dpo-tui replay {run}")
    return lines


def _figures(metrics: dict[str, events.Number], prefix: str = "") -> str:
    return "   ".join(
        f"{label} {number(events.from_number(metrics[prefix + name])):>7}"
        for name, label in FIGURES
        if prefix + name in metrics
    )


def _took(model: RunModel) -> str:
    ranks = [p for p in model.processes.values() if p.start is not None and p.start.role == "rank"]
    seen = [rank.last_seen_s for rank in ranks]
    start = model.attempt.start if model.attempt is not None else None
    return f" after {duration(max(seen) - start.t)}" if seen and start is not None else ""


def _held_out_margin(model: RunModel) -> str | None:
    """Mean over the held-out pairs with its interval, from the last evaluation."""
    names = ("eval_rewards/margins", "eval_rewards/margins_low", "eval_rewards/margins_high")
    mean, low, high = (model.series.last(name) for name in names)
    if mean is None:
        return None
    interval = (
        f"   95 % interval {number(low)} to {number(high)}" if low is not None and high is not None else ""
    )
    return number(mean) + interval


def _verdict(model: RunModel) -> str:
    serious = [alert for alert in model.alerts if alert.severity != "info"]
    if not serious:
        return "clean"
    return "alerts: " + ", ".join(dict.fromkeys(f"{printable(a.code)} ({a.severity})" for a in serious))
