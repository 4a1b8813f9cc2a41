"""Every series of a run, as the metrics screen draws them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.series.columns import Floats, Ints, Series, SeriesStore
from dpo_tui.charts.axis import STEP, Axis

TOKENS_SEEN = ("num_tokens", "num_input_tokens_seen")
"""Metrics that count tokens from the start of the run on."""
STEP_TOKENS = "tokens"
"""Metric that holds the tokens of one step."""

_NONE = Series(np.empty(0, np.int64), np.empty(0), np.empty(0))


@dataclass(frozen=True, eq=False, slots=True)
class MetricView:
    """One metric."""

    name: str
    effective: Series
    superseded: Series
    """Values that a newer attempt or a repeated line replaced, in the order in which they were logged."""


@dataclass(frozen=True, eq=False, slots=True)
class Metrics(Mapping[str, MetricView]):
    """All metrics by name, in the order of their first appearance."""

    views: Mapping[str, MetricView]
    axes: tuple[Axis, ...] = (STEP,)
    """What the x axis may show; steps come first."""
    attempt_starts: tuple[int, ...] = ()
    """First step of each attempt after the first."""

    def __getitem__(self, name: str) -> MetricView:
        return self.views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)


_taken: WeakKeyDictionary[SeriesStore, tuple[tuple[int, int, int], Metrics]] = WeakKeyDictionary()


def take_series(model: RunModel) -> Metrics:
    """Every metric, and tokens and time of each step; the same object as before while no row was added."""
    store, work = model.series, model.work
    rows = len(store.train), len(store.eval), len(work)
    before = _taken.get(store)
    if before is not None and before[0] == rows:
        return before[1]
    views = {name: MetricView(name, store.effective(name), store.superseded(name)) for name in store.names()}
    for name in work.names():
        views.setdefault(name, MetricView(name, work.effective(name), work.superseded(name)))
    table = store.train if len(store.train) else store.eval
    metrics = Metrics(views, (STEP, *_axes(views)), tuple(table.attempt_starts()))
    _taken[store] = rows, metrics
    return metrics


def _axes(views: Mapping[str, MetricView]) -> Iterator[Axis]:
    """Every axis besides the steps that this run has the numbers for."""
    longest = max((view.effective for view in views.values()), key=len, default=_NONE)
    known = longest.wall_s > 0
    if known.any():
        yield from _axis("time", longest.steps[known], longest.wall_s[known] - longest.wall_s[known].min())
    for name in ("epoch", "eval_epoch"):
        if name in views:
            yield from _axis("epoch", views[name].effective.steps, views[name].effective.values)
            break
    for name in TOKENS_SEEN:
        if name in views:
            yield from _axis("tokens", views[name].effective.steps, views[name].effective.values)
            return
    if STEP_TOKENS in views:
        tokens = views[STEP_TOKENS].effective
        seen = np.cumsum(np.nan_to_num(tokens.values, posinf=0.0, neginf=0.0))
        yield from _axis("tokens", tokens.steps, seen)


def _axis(name: str, steps: Ints, positions: Floats) -> Iterator[Axis]:
    """Clocks are set back and counters start over; an axis only goes on. Two points make one."""
    finite = np.isfinite(positions)
    if np.count_nonzero(finite) > 1:
        yield Axis(name, steps[finite].astype(np.float64), np.maximum.accumulate(positions[finite]))
