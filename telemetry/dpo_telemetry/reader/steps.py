"""Steps with the same metrics, many at once: as columns, without an object and a dict for each.

A run logs the same names at each step, and a dict a step is most of what reading a long run costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from dpo_telemetry.events import NOT_READABLE, Number, Step, decode
from dpo_telemetry.series.columns import Floats, Ints

STEP_MARK = b'{"k":"step",'
"""How the writer begins the line of a step."""
MIN_BYTES = 1 << 16
"""Fewer are read as events: a layout has a price of its own."""
MAX_METRICS = 256
"""Steps with more are read as events."""
NEWEST_STEPS = 20
"""Steps of a block that are handed out as events too: pace and throughput come from them."""

_step, _wall_s, _epoch = attrgetter("step"), attrgetter("t"), attrgetter("epoch")


@dataclass(frozen=True)
class StepColumns:
    """A block of n steps with the same k metrics."""

    steps: Ints
    """Shape (n,)."""
    wall_s: Floats
    """Seconds since the epoch, shape (n,)."""
    names: tuple[str, ...]
    values: Floats
    """Shape (k, n)."""
    epochs: Floats | None
    """Shape (n,); None where no step says its epoch."""
    work: dict[str, Floats]
    """Of "tokens" and "step_time_s" what the steps say, shape (n,); NaN where one does not."""
    newest: list[Step]
    """The last of the steps, at most `NEWEST_STEPS`."""

    def columns(self, epoch_name: str) -> dict[str, tuple[Ints, Floats]]:
        """By metric, its rows and values; the epoch counts as one."""
        rows = np.arange(len(self.steps))
        found = {name: (rows, values) for name, values in zip(self.names, self.values, strict=True)}
        return found if self.epochs is None else found | {epoch_name: (rows, self.epochs)}


class StepBlocks:
    """Decodes blocks of one file; what it took for the last layout serves the next block."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] | None = None
        self._decoder: msgspec.json.Decoder[Any] | None = None

    def decode(self, block: bytes) -> StepColumns | None:
        """The steps of whole lines, or None where any line is anything but a step like the first."""
        lines = block.split(b"\n", 1)
        try:
            first = decode(lines[0])
            if not isinstance(first, Step) or not self._lay_out(tuple(first.metrics)):
                return None
            assert self._decoder is not None
            found = self._decoder.decode_lines(block)
            newest = [
                decode(line) for line in block.rsplit(b"\n", NEWEST_STEPS)[-NEWEST_STEPS:] if line.strip()
            ]
            return self._columns(found, [step for step in newest if isinstance(step, Step)])
        except NOT_READABLE:
            return None

    def _lay_out(self, names: tuple[str, ...]) -> bool:
        if len(names) > MAX_METRICS:
            return False
        if names != self._names:
            # All fields required and no other allowed: what decodes has these metrics and no others.
            fields = [(f"m{at}", Number, msgspec.field(name=name)) for at, name in enumerate(names)]
            metrics = msgspec.defstruct("Metrics", fields, forbid_unknown_fields=True, gc=False)
            same = [
                (field.name, metrics if field.name == "metrics" else field.type, _default(field))
                for field in msgspec.structs.fields(Step)
            ]
            step = msgspec.defstruct("StepOfNames", same, tag_field="k", tag="step", gc=False, kw_only=True)
            self._names, self._decoder = names, msgspec.json.Decoder(step)
        return True

    def _columns(self, found: list[Any], newest: list[Step]) -> StepColumns | None:
        assert self._names is not None
        n, names = len(found), self._names
        cells = chain.from_iterable(map(msgspec.structs.astuple, map(attrgetter("metrics"), found)))
        # Values that are not finite are text that numpy reads as what it says.
        values = np.fromiter(cells, np.float64, n * len(names)).reshape(n, len(names))
        epochs = list(map(_epoch, found))
        unsaid = epochs.count(None)
        if 0 < unsaid < n:
            return None
        return StepColumns(
            steps=np.fromiter(map(_step, found), np.int64, n),
            wall_s=np.fromiter(map(_wall_s, found), np.float64, n),
            names=names,
            values=np.ascontiguousarray(values.T),
            epochs=None if unsaid else np.array(epochs, np.float64),
            work=work_of(found),
            newest=newest,
        )


def work_of(steps: Sequence[Any]) -> dict[str, Floats]:
    """Tokens and time of each step, shape (n,), NaN where it does not say; without what none says."""
    columns = {
        "tokens": [step.tokens for step in steps],
        "step_time_s": [step.times_s.get("step") for step in steps],
    }
    return {
        name: np.array(values, np.float64)
        for name, values in columns.items()
        if values.count(None) < len(values)
    }


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.field(default=field.default)
