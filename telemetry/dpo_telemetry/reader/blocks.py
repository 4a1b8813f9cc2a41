"""Decoded stretches of event files as bytes: a description as JSON, then arrays of 8-byte numbers.

They lie so in an index, and so they come from a process that decodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from dpo_telemetry import events
from dpo_telemetry.events import Step
from dpo_telemetry.reader.source import Prepared
from dpo_telemetry.reader.steps import StepColumns
from dpo_telemetry.series.columns import Floats

ITEM_BYTES = 8


class Block(msgspec.Struct, frozen=True):
    """A stretch of an event file; its arrays are steps, wall clock, epochs, work and metrics, in this order."""

    file: str
    offset: int
    size_bytes: int
    lines: bytes
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

    @property
    def arrays_bytes(self) -> int:
        """What they take."""
        return self.arrays * self.n * ITEM_BYTES


def layout(chunk: Prepared) -> tuple[Any, ...]:
    """Chunks one behind the other that have this in common make one block."""
    steps = chunk.steps
    if steps is None:
        return chunk.file, None
    return chunk.file, steps.names, steps.epochs is None, tuple(steps.work)


def describe(group: Sequence[Prepared]) -> Block:
    """The block that chunks of one layout make."""
    first, last = group[0], group[-1].steps
    lines = b"\n".join(chunk.data for chunk in group if chunk.data)
    return Block(
        file=first.file,
        offset=first.offset,
        size_bytes=sum(chunk.size_bytes for chunk in group),
        lines=lines,
        n=sum(len(chunk.steps.steps) for chunk in group if chunk.steps is not None),
        names=list(last.names) if last else [],
        has_epochs=last is not None and last.epochs is not None,
        work=list(last.work) if last else [],
        newest=[events.encode(step).decode() for step in last.newest] if last else [],
    )


def arrays(group: Sequence[Prepared]) -> Iterator[memoryview]:
    """The arrays of that block, piece by piece."""
    stepping = [chunk.steps for chunk in group if chunk.steps is not None]
    for block in stepping:
        yield np.ascontiguousarray(block.steps).data
    for parts in _float_columns(stepping) if stepping else ():
        for part in parts:
            yield np.ascontiguousarray(part).data


def unpack(blocks: Sequence[Block], data: Any, start: int) -> Iterator[Prepared]:
    """The chunks that blocks mean, whose arrays fill `data` (any buffer) from `start` on.

    Raises:
        ValueError: they do not, or a block is none.
    """
    for block in blocks:
        if not 0 <= block.n <= len(data) // ITEM_BYTES:
            raise ValueError("more steps than bytes")
        steps = _steps(block, data, start) if block.n else None
        start += block.arrays_bytes
        yield Prepared(block.file, block.offset, block.lines, block.size_bytes, steps)
    if start != len(data):
        raise ValueError("cut off")


def _steps(block: Block, data: Any, start: int) -> StepColumns:
    made = np.frombuffer(data, np.int64, block.n, start)
    rest = np.frombuffer(data, np.float64, (block.arrays - 1) * block.n, start + block.n * ITEM_BYTES)
    table = rest.reshape(block.arrays - 1, block.n)
    wall_s, *others = table
    epochs = others.pop(0) if block.has_epochs else None
    newest = [event for line in block.newest if isinstance(event := events.decode(line.encode()), Step)]
    if not newest:
        raise ValueError("steps without the newest of them")
    return StepColumns(
        steps=made,
        wall_s=wall_s,
        names=tuple(block.names),
        values=table[len(table) - len(block.names) :],
        epochs=epochs,
        work=dict(zip(block.work, others, strict=False)),
        newest=newest,
    )


def _float_columns(stepping: list[StepColumns]) -> Iterator[list[Floats]]:
    yield [block.wall_s for block in stepping]
    if stepping[0].epochs is not None:
        yield [block.epochs for block in stepping if block.epochs is not None]
    for name in stepping[0].work:
        yield [block.work[name] for block in stepping]
    for at in range(len(stepping[0].names)):
        yield [block.values[at] for block in stepping]
