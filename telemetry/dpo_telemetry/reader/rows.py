"""Steps and evaluations on their way into a table: many at once, since one at a time costs as much as reading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter

import numpy as np

from dpo_telemetry.events import Eval, Step
from dpo_telemetry.reader.steps import work_of
from dpo_telemetry.series.columns import Floats, Ints, Table, joined

_METRICS = attrgetter("metrics")


def append_rows(table: Table, found: Sequence[Step | Eval], attempt: int, epoch_name: str) -> None:
    """Append rows of one attempt to a table, in the order in which they came.

    Args:
        table: where to.
        found: the rows.
        attempt: whose.
        epoch_name: the metric that their epoch becomes.
    """
    n = len(found)
    if n == 0:
        return
    table.extend(
        np.fromiter(map(attrgetter("step"), found), np.int64, n),
        _columns(found, epoch_name),
        attempts=np.full(n, attempt, np.int64),
        wall_s=np.fromiter(map(attrgetter("t"), found), np.float64, n),
    )


def append_work(table: Table, steps: Sequence[Step], attempt: int) -> None:
    """Append tokens and time of steps that were read one by one."""
    if steps:
        made = np.array([step.step for step in steps], np.int64)
        wall_s = np.array([step.t for step in steps], np.float64)
        append_columns(table, made, wall_s, work_of(steps), attempt)


def append_columns(
    table: Table, steps: Ints, wall_s: Floats, columns: Mapping[str, Floats], attempt: int
) -> None:
    """Append rows of one attempt as columns, all of shape (n,), in which NaN is nothing."""
    told = {}
    for name, values in columns.items():
        rows = np.flatnonzero(~np.isnan(values))
        told[name] = (rows, values[rows])
    if told:
        table.extend(steps, told, attempts=np.full(len(steps), attempt, np.int64), wall_s=wall_s)


def _columns(found: Sequence[Step | Eval], epoch_name: str) -> dict[str, tuple[Ints, Floats]]:
    """By metric, which rows have it and their values."""
    parts: dict[str, list[tuple[Ints, Floats]]] = {}
    for names, places in _by_names(found).items():
        rows = np.array(places, np.int64)
        chosen = found if len(places) == len(found) else [found[at] for at in places]
        # Values that are not finite are text that numpy reads as what it says.
        cells = chain.from_iterable(map(dict.values, map(_METRICS, chosen)))
        table = np.fromiter(cells, np.float64, len(chosen) * len(names)).reshape(len(chosen), len(names))
        for column, name in enumerate(names):
            parts.setdefault(name, []).append((rows, table[:, column]))
    epochs = [(at, event.epoch) for at, event in enumerate(found) if event.epoch is not None]
    if epochs:
        at, values = zip(*epochs, strict=True)
        parts.setdefault(epoch_name, []).append((np.array(at), np.array(values, np.float64)))
    return {name: joined(pieces) for name, pieces in parts.items()}


def _by_names(found: Sequence[Step | Eval]) -> dict[tuple[str, ...], list[int] | range]:
    """Places of the rows with the same metrics in the same order."""
    names = list(map(tuple, map(_METRICS, found)))
    if len(set(names)) == 1:
        return {names[0]: range(len(found))}
    places: dict[tuple[str, ...], list[int] | range] = {}
    for at, own in enumerate(names):
        kept = places.setdefault(own, [])
        assert isinstance(kept, list)
        kept.append(at)
    return places
