"""The columns of a run that has ended, kept in the user's cache: it opens at once the next time.

One file a run: a header as JSON, then arrays of 8-byte numbers. It can always be made again; one
that is not what it should be is not there. What it was made from (sizes and times of the event
files, the profiles, the rules) is in its fingerprint.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import platformdirs

from dpo_telemetry import events, health
from dpo_telemetry.cli import APP_NAME
from dpo_telemetry.events import NOT_READABLE, Step
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.reader.backlog import Backlog
from dpo_telemetry.reader.source import Prepared
from dpo_telemetry.reader.steps import StepColumns
from dpo_telemetry.rundir.create import replaced
from dpo_telemetry.series.columns import Floats

MAGIC = b"dpo-index 1\n"
MAX_HEAD_BYTES = 64 << 20
KEPT_BYTES = 4 << 30
"""The indexes of runs that were opened longest ago go when all together take more."""
ITEM_BYTES = 8


class Block(msgspec.Struct, frozen=True):
    """A stretch of an event file; its arrays follow each other in the order of these fields."""

    file: str
    offset: int
    size_bytes: int
    lines: str
    """Lines of other events."""
    n: int
    """Steps; 0 where all lines are in `lines`."""
    names: list[str]
    has_epochs: bool
    work: list[str]
    newest: list[str]

    @property
    def arrays(self) -> int:
        """How many arrays of n numbers belong to it."""
        return 2 + self.has_epochs + len(self.work) + len(self.names) if self.n else 0


class Head(msgspec.Struct, frozen=True):
    """What the file begins with."""

    fingerprint: str
    alerts: list[HealthAlert]
    """What the rules say of these rows."""
    blocks: list[Block]


@dataclass(frozen=True)
class Index:
    """What was kept of a run."""

    alerts: list[HealthAlert]
    chunks: list[Prepared]


def load(backlog: Backlog) -> Index | None:
    """What is kept of exactly these files; None where nothing is."""
    with contextlib.suppress(OSError, ValueError, OverflowError, *NOT_READABLE):
        path = _path(backlog)
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        path.touch()
        head, start = _head(memoryview(data))
        if head.fingerprint == fingerprint(backlog):
            chunks = list(_chunks(head.blocks, data, start))
            if _covers(chunks, backlog):
                return Index(head.alerts, chunks)
    return None


def save(backlog: Backlog, chunks: Sequence[Prepared], alerts: Sequence[HealthAlert]) -> None:
    """Keep the decoded chunks of a backlog.

    Raises:
        OSError: the cache cannot be written.
    """
    groups = [list(group) for _, group in groupby(chunks, key=_layout)]
    head = Head(fingerprint(backlog), list(alerts), [_block(group) for group in groups])
    path = _path(backlog)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        text = msgspec.json.encode(head)
        text += b" " * (-(len(MAGIC) + ITEM_BYTES + len(text)) % ITEM_BYTES)
        file.write(MAGIC + len(text).to_bytes(ITEM_BYTES, "little") + text)
        for group in groups:
            _write_arrays(file, group)
    _drop_oldest(path.parent)


def fingerprint(backlog: Backlog) -> str:
    """What an index is made from; another one when any of it changes.

    Raises:
        OSError: a file is gone.
    """
    digest = hashlib.sha256(rules_digest())
    for file in sorted({stretch.file for stretch in backlog.stretches}):
        status = (backlog.run.path / file).stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    for attempt in backlog.run.attempts():
        with contextlib.suppress(OSError):
            digest.update((attempt.path / "profile.toml").read_bytes())
    return digest.hexdigest()


@cache
def rules_digest() -> bytes:
    """Changes with the rules, so that no run keeps what older ones said."""
    digest = hashlib.sha256()
    for path in sorted(Path(health.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


def _path(backlog: Backlog) -> Path:
    name = hashlib.sha256(str(backlog.run.path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return Path(platformdirs.user_cache_dir(APP_NAME)) / "runs" / f"{name[:32]}.index"


def _head(data: memoryview) -> tuple[Head, int]:
    start = len(MAGIC) + ITEM_BYTES
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("not an index of this version")
    size = int.from_bytes(data[len(MAGIC) : start], "little")
    if size > MAX_HEAD_BYTES:
        raise ValueError("the header is too long")
    return msgspec.json.decode(data[start : start + size], type=Head), start + size


def _chunks(blocks: list[Block], data: mmap.mmap, start: int) -> Iterator[Prepared]:
    for block in blocks:
        if not 0 <= block.n <= len(data) // ITEM_BYTES:
            raise ValueError("more steps than bytes")
        steps = _steps(block, data, start) if block.n else None
        start += block.arrays * block.n * ITEM_BYTES
        lines = block.lines.encode("utf-8", "surrogateescape")
        yield Prepared(block.file, block.offset, lines, block.size_bytes, steps)
    if start != len(data):
        raise ValueError("cut off")


def _steps(block: Block, data: mmap.mmap, start: int) -> StepColumns:
    made = np.frombuffer(data, np.int64, block.n, start)
    rest = np.frombuffer(data, np.float64, (block.arrays - 1) * block.n, start + block.n * ITEM_BYTES)
    wall_s, *arrays = rest.reshape(block.arrays - 1, block.n)
    epochs = arrays.pop(0) if block.has_epochs else None
    newest = [event for line in block.newest if isinstance(event := events.decode(line.encode()), Step)]
    if not newest:
        raise ValueError("steps without the newest of them")
    return StepColumns(
        steps=made,
        wall_s=wall_s,
        names=tuple(block.names),
        values=rest.reshape(block.arrays - 1, block.n)[block.arrays - 1 - len(block.names) :],
        epochs=epochs,
        work=dict(zip(block.work, arrays, strict=False)),
        newest=newest,
    )


def _covers(chunks: list[Prepared], backlog: Backlog) -> bool:
    """Whether the chunks follow each other up to the ends of all files."""
    reached: dict[str, int] = {}
    for chunk in chunks:
        if chunk.offset != reached.get(chunk.file, 0) or chunk.size_bytes < 0:
            return False
        reached[chunk.file] = chunk.end
    return reached == {stretch.file: stretch.end for stretch in backlog.stretches}


def _layout(chunk: Prepared) -> tuple[Any, ...]:
    """Chunks one behind the other that have this in common are kept as one block."""
    steps = chunk.steps
    if steps is None:
        return chunk.file, None
    return chunk.file, steps.names, steps.epochs is None, tuple(steps.work)


def _block(group: list[Prepared]) -> Block:
    first, last = group[0], group[-1].steps
    lines = b"\n".join(chunk.data for chunk in group if chunk.data)
    return Block(
        file=first.file,
        offset=first.offset,
        size_bytes=sum(chunk.size_bytes for chunk in group),
        lines=lines.decode("utf-8", "surrogateescape"),
        n=sum(len(chunk.steps.steps) for chunk in group if chunk.steps is not None),
        names=list(last.names) if last else [],
        has_epochs=last is not None and last.epochs is not None,
        work=list(last.work) if last else [],
        newest=[events.encode(step).decode() for step in last.newest] if last else [],
    )


def _write_arrays(file: BinaryIO, group: list[Prepared]) -> None:
    stepping = [chunk.steps for chunk in group if chunk.steps is not None]
    if not stepping:
        return
    file.writelines(np.ascontiguousarray(block.steps).data for block in stepping)
    for parts in _float_columns(stepping):
        file.writelines(np.ascontiguousarray(part).data for part in parts)


def _float_columns(stepping: list[StepColumns]) -> Iterator[list[Floats]]:
    yield [block.wall_s for block in stepping]
    if stepping[0].epochs is not None:
        yield [block.epochs for block in stepping if block.epochs is not None]
    for name in stepping[0].work:
        yield [block.work[name] for block in stepping]
    for at in range(len(stepping[0].names)):
        yield [block.values[at] for block in stepping]


def _drop_oldest(folder: Path) -> None:
    kept_bytes = 0
    for path in sorted(folder.glob("*.index"), key=lambda path: path.stat().st_mtime, reverse=True):
        kept_bytes += path.stat().st_size
        if kept_bytes > KEPT_BYTES:
            path.unlink(missing_ok=True)
