"""What every reader of a foreign log gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dpo_telemetry.series.columns import Floats, Ints, SeriesStore, Table, joined

StepSource = Literal["logged", "progress bar", "counted"]

MAX_METRICS = 2000
"""More names than that are no metrics; rows that have others are counted as not understood."""


@dataclass
class ForeignLog:
    """Rows of a log, training and evaluation apart."""

    format: str
    series: SeriesStore = field(default_factory=SeriesStore)
    step_source: StepSource = "counted"
    attempts: int = 1
    """1, and one more each time the steps start again from an earlier one."""
    lines_not_understood: int = 0
    beta: float | None = None
    loss_kind: str | None = None
    shows_training: bool = False
    """Whether any metric is one that training loops log."""
    _names: set[str] = field(default_factory=set)

    def admits(self, name: str) -> bool:
        """Whether there is room for a metric of this name; takes the room."""
        if name in self._names:
            return True
        if len(self._names) >= MAX_METRICS:
            return False
        self._names.add(name)
        return True


class Chunk:
    """Rows of one table within a chunk of a log, gathered metric by metric."""

    def __init__(self, table: Table, steps: Ints, attempts: Ints) -> None:
        self._table, self._steps, self._attempts = table, steps, attempts
        self._pieces: dict[str, list[tuple[Ints, Floats]]] = {}

    def add(self, name: str, rows: Ints, values: Floats) -> None:
        """Values of one metric: `rows` are indices into this chunk, shape (n,) like the values."""
        if len(rows):
            self._pieces.setdefault(name, []).append((rows, values))

    def append(self) -> None:
        """Add the rows to the table."""
        columns = {name: joined(pieces) for name, pieces in self._pieces.items()}
        self._table.extend(self._steps, columns, attempts=self._attempts)
