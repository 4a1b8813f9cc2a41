"""Steps and evaluations on their way into a table: many at once, since one at a time costs as much as reading them."""

from __future__ import annotations

import numpy as np

from dpo_telemetry.events import Eval, Step
from dpo_telemetry.series.columns import Floats, Ints, Table


class RowBatch:
    """Rows of one attempt that wait to be appended to a table in the order in which they came."""

    def __init__(self, epoch_name: str) -> None:
        self._epoch_name = epoch_name
        self._events: list[Step | Eval] = []

    def add(self, event: Step | Eval) -> None:
        """Take the next row."""
        self._events.append(event)

    def flush(self, table: Table, attempt: int) -> None:
        """Append what waits."""
        found, self._events = self._events, []
        if not found:
            return
        n = len(found)
        table.extend(
            np.fromiter((event.step for event in found), np.int64, n),
            self._columns(found),
            attempts=np.full(n, attempt, np.int64),
            wall_s=np.fromiter((event.t for event in found), np.float64, n),
        )

    def _columns(self, found: list[Step | Eval]) -> dict[str, tuple[Ints, Floats]]:
        """By metric, which rows have it and their values."""
        parts: dict[str, list[tuple[Ints, Floats]]] = {}
        for names, places in _by_names(found).items():
            # Values that are not finite are text that numpy reads as what it says.
            table = np.array([list(found[at].metrics.values()) for at in places], np.float64)
            rows = np.array(places, np.int64)
            for column, name in enumerate(names):
                parts.setdefault(name, []).append((rows, table[:, column]))
        epochs = [(at, event.epoch) for at, event in enumerate(found) if event.epoch is not None]
        if epochs:
            at, values = zip(*epochs, strict=True)
            parts.setdefault(self._epoch_name, []).append((np.array(at), np.array(values, np.float64)))
        return {name: _joined(pieces) for name, pieces in parts.items()}


def _by_names(found: list[Step | Eval]) -> dict[tuple[str, ...], list[int] | range]:
    """Places of the rows with the same metrics in the same order."""
    names = [tuple(event.metrics) for event in found]
    if len(set(names)) == 1:
        return {names[0]: range(len(found))}
    places: dict[tuple[str, ...], list[int] | range] = {}
    for at, own in enumerate(names):
        kept = places.setdefault(own, [])
        assert isinstance(kept, list)
        kept.append(at)
    return places


def _joined(pieces: list[tuple[Ints, Floats]]) -> tuple[Ints, Floats]:
    """One column in the order of its rows; where a metric came twice in a row, the later one counts."""
    if len(pieces) == 1:
        return pieces[0]
    rows = np.concatenate([rows for rows, _ in pieces])
    values = np.concatenate([values for _, values in pieces])
    order = np.argsort(rows, kind="stable")
    rows, values = rows[order], values[order]
    last = np.append(rows[1:] != rows[:-1], True)
    return rows[last], values[last]
