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


def describe(chunk: Prepared) -> Block:
    """The block of a chunk."""
    steps = chunk.steps
    return Block(
        file=chunk.file,
        offset=chunk.offset,
        size_bytes=chunk.size_bytes,
        lines=chunk.data,
        n=len(steps.steps) if steps else 0,
        names=list(steps.names) if steps else [],
        has_epochs=steps is not None and steps.epochs is not None,
        work=list(steps.work) if steps else [],
        newest=[events.encode(step).decode() for step in steps.newest] if steps else [],
    )


def arrays(chunk: Prepared) -> Iterator[memoryview]:
    """The arrays of its block, one by one."""
    steps = chunk.steps
    if steps is None:
        return
    epochs = () if steps.epochs is None else (steps.epochs,)
    for array in (steps.steps, steps.wall_s, *epochs, *steps.work.values(), *steps.values):
        yield np.ascontiguousarray(array).data


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
