"""How each run stands, from a bounded look at its files: what the list of runs shows."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.events import NOT_READABLE, Number, Severity, StepNumber
from dpo_telemetry.reader.lines import LineReader
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk
from dpo_telemetry.reader.status import ENDED, SILENT_AFTER_S, State, status_of
from dpo_telemetry.reader.steps import STEP_MARK
from dpo_telemetry.rundir.layout import Attempt, RunDirectory
from dpo_telemetry.text import printable

HEAD_BYTES = 16 << 10
"""Enough for the start of a rank, with the versions of its libraries."""
PIECE_BYTES = 4 << 10
PIECES = 48
TAIL_BYTES = 32 << 10
SMALL_FILE_BYTES = 1 << 20
"""The summary, or how a host ended; larger is damage."""
MAX_HOSTS = 64
"""Exit files that are read of one attempt."""
STEPS_FOR_STATUS = 20
LOSSES = 48
"""Most values of a loss line."""

RowState = State | Literal["damaged"]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. Times are seconds since the epoch; texts may come from anywhere."""

    run: RunDirectory
    name: str
    state: RowState
    reason: str = ""
    live: bool = False
    """Whether a process of it is known to live."""
    attempt: int = 0
    step: int = 0
    max_steps: int | None = None
    loss: float | None = None
    losses: tuple[float, ...] = ()
    """The loss over the steps of the newest attempt, evenly in steps; NaN where one was not finite."""
    alerts: Mapping[Severity, int] | None = None
    """Number of alerts by severity; None where nobody has counted them."""
    created_s: float = 0.0
    host: str = ""

    @property
    def share(self) -> float | None:
        """Steps made of those to make."""
        return min(1.0, self.step / self.max_steps) if self.max_steps else None


class Written(msgspec.Struct, frozen=True):
    """What the list takes from `state.json`, which a keeper writes."""

    state: State
    host: str
    updated: float
    reason: str = ""
    attempt: Annotated[int, msgspec.Meta(ge=0)] | None = None
    step: StepNumber = 0
    max_steps: StepNumber | None = None
    metrics: dict[str, Number] = {}
    alerts: dict[Severity, int] = {}


def look(run: RunDirectory, *, registered: bool, now_s: float) -> RunRow:
    """How a run stands at `now_s`; one that cannot be read is a row that says why."""
    try:
        if not stat.S_ISREG(run.run_file.stat().st_mode):
            raise TelemetryError(f"{run.run_file}: is no file")
        info = run.info()
        attempts = run.attempts()
        made_s = info.created if math.isfinite(info.created) else 0.0
        row = RunRow(run, info.name, "waiting", "no attempt yet", created_s=made_s, host=info.host)
        return _stands(row, attempts, registered, now_s) if attempts else row
    except (TelemetryError, OSError) as error:
        said = error.message if isinstance(error, TelemetryError) else f"{error.filename}: {error.strerror}"
        return RunRow(run, run.name, "damaged", said.replace(f"{run.path}{os.sep}", ""), live=registered)


def _stands(row: RunRow, attempts: list[Attempt], registered: bool, now_s: float) -> RunRow:
    newest = attempts[-1]
    excerpt = excerpt_of(newest.event_file("rank-00000"))
    written = read_written(row.run)
    if written is None or written.attempt != newest.number:
        counted = None
    else:
        counted = written.alerts
        if written.state in ENDED or abs(now_s - written.updated) < SILENT_AFTER_S:
            return RunRow(
                run=row.run,
                name=row.name,
                state=written.state,
                reason=written.reason,
                live=registered or _lives(written.state),
                attempt=newest.number,
                step=written.step,
                max_steps=written.max_steps,
                loss=events.from_number(written.metrics["loss"]) if "loss" in written.metrics else None,
                losses=losses_of(excerpt),
                alerts=counted,
                created_s=row.created_s,
                host=written.host,
            )
    model = _model_of(row.run, newest, excerpt)
    status = status_of(model, now_s)
    start = model.attempt.start if model.attempt is not None else None
    return RunRow(
        run=row.run,
        name=row.name,
        state=status.state,
        reason=status.reason
        if status.state != "silent"
        else "no heartbeat: dead, or its host is out of reach",
        live=registered or _lives(status.state),
        attempt=newest.number,
        step=model.last_step,
        max_steps=model.max_steps,
        loss=model.series.last("loss") if "loss" in model.series.names() else None,
        losses=losses_of(excerpt),
        alerts=counted,
        created_s=row.created_s,
        host=start.host if start is not None else row.host,
    )


def _lives(state: State) -> bool:
    """Heartbeats are proof of life; waiting and silence are none."""
    return state not in (*ENDED, "silent", "waiting")


def _model_of(run: RunDirectory, attempt: Attempt, excerpt: bytes) -> RunModel:
    """A model of what the excerpt tells, and of how the hosts ended."""
    base = attempt.path.relative_to(run.path).as_posix()
    chunks = []
    if excerpt:
        chunks.append(Chunk(f"{base}/events/rank-00000.jsonl", 0, _newest_steps(excerpt)))
    else:
        for file in sorted(attempt.events_dir.glob("agent-*.jsonl"))[:MAX_HOSTS]:
            chunks.append(Chunk(f"{base}/events/{file.name}", 0, excerpt_of(file)))
    for file in sorted(attempt.path.glob("exit-*.json"))[:MAX_HOSTS]:
        chunks.append(Chunk(f"{base}/{file.name}", 0, read_small(file)))
    model = RunModel()
    model.apply([Chunk(f"{base}/plan.json", 0, b"{}"), *chunks])
    return model


def _newest_steps(excerpt: bytes) -> bytes:
    """The lines that tell how a run stands; most steps are left out, or the health rules would judge each."""
    lines = excerpt.splitlines(keepends=True)
    steps = [at for at, line in enumerate(lines) if line.startswith(STEP_MARK)]
    left_out = set(steps[:-STEPS_FOR_STATUS])
    return b"".join(line for at, line in enumerate(lines) if at not in left_out)


def read_written(run: RunDirectory) -> Written | None:
    """The keeper's summary; None when there is none, or none that can be read."""
    try:
        return msgspec.json.decode(read_small(run.state_file), type=Written)
    except (*NOT_READABLE, OSError):
        return None


def read_small(file: Path) -> bytes:
    """A small file; empty when there is none, when it is no file, or too large."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > SMALL_FILE_BYTES:
            return b""
        return file.read_bytes()
    except OSError:
        return b""


def excerpt_of(file: Path) -> bytes:
    """Whole lines of an event file: its head, pieces spread evenly over it, its tail; small files as they are."""
    try:
        size = file.stat().st_size
        if not file.is_file() or not size:
            return b""
        with file.open("rb") as stream:
            between = size - HEAD_BYTES - TAIL_BYTES
            if between <= PIECES * PIECE_BYTES:
                return _whole_lines(stream.read(HEAD_BYTES + TAIL_BYTES + PIECES * PIECE_BYTES), torn=False)
            parts = [_whole_lines(stream.read(HEAD_BYTES), torn=False)]
            for start in np.linspace(HEAD_BYTES, size - TAIL_BYTES - PIECE_BYTES, PIECES).astype(int):
                stream.seek(start)
                parts.append(_whole_lines(stream.read(PIECE_BYTES)))
            stream.seek(size - TAIL_BYTES)
            parts.append(_whole_lines(stream.read(TAIL_BYTES)))
            return b"".join(parts)
    except OSError:
        return b""


def _whole_lines(data: bytes, *, torn: bool = True) -> bytes:
    """What stands between the first newline and the last one; from the beginning unless that is torn."""
    start = data.find(b"\n") + 1 if torn else 0
    return data[start : data.rfind(b"\n") + 1]


def losses_of(excerpt: bytes) -> tuple[float, ...]:
    """The loss over steps: means of `LOSSES` spans of equal width, NaN for one that holds such a value.

    Spans without a step in the excerpt are left out.
    """
    found = {
        event.step: events.from_number(event.metrics["loss"])
        for event in LineReader().feed(excerpt)
        if isinstance(event, events.Step) and "loss" in event.metrics
    }
    if not found:
        return ()
    steps = np.array(sorted(found))
    values = np.array([found[step] for step in steps.tolist()])
    values[~np.isfinite(values)] = np.nan
    spans = (steps - steps[0]) * LOSSES // max(1, int(steps[-1] - steps[0]) + 1)
    starts = np.flatnonzero(np.diff(spans, prepend=-1))
    counts = np.diff(starts, append=len(values))
    with np.errstate(over="ignore"):
        return tuple((np.add.reduceat(values, starts) / counts).tolist())


def fingerprint(run: RunDirectory) -> tuple[object, ...]:
    """What changes when a run does: cheap to take, equal while there is nothing new to read."""
    attempts = run.attempts()
    files = [run.run_file, run.state_file]
    if attempts:
        files.append(attempts[-1].event_file("rank-00000"))
    marks: list[object] = [len(attempts), bool(attempts) and attempts[-1].ended()]
    for file in files:
        try:
            status = file.stat()
            marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            marks.append(None)
    return tuple(marks)


def matches(row: RunRow, text: str) -> bool:
    """Whether every word of `text` is somewhere in the name, the state, the host or the path."""
    where = " ".join((printable(row.name), row.state, printable(row.host), str(row.run.path))).casefold()
    return all(word in where for word in text.casefold().split())
