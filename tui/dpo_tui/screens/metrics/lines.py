"""The lines of a chart from the series of its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dpo_telemetry.series.columns import Series
from dpo_telemetry.text import printable
from dpo_tui.charts.chart import Ink, Line
from dpo_tui.charts.downsample import Floats
from dpo_tui.charts.picture import RAW_INKS
from dpo_tui.charts.smooth import NEGLIGIBLE, smoothed
from dpo_tui.screens.metrics.groups import Group
from dpo_tui.views.series import Metrics

MOST_SUPERSEDED = 8
"""Lines of replaced values in a chart; more attempts than these are drawn as one line."""


class Lines:
    """Makes lines and keeps them: the same objects while neither series nor smoothing changed."""

    def __init__(self) -> None:
        self._metrics: Metrics | None = None
        self._smoothing = 0.0
        self._made: dict[str, tuple[Line, ...]] = {}
        self._positive: dict[str, bool] = {}
        self._averages: dict[str, tuple[Floats, Floats]] = {}
        """By metric, its values and what they were smoothed to: rows that follow leave both as they are."""

    def of(self, group: Group, metrics: Metrics, smoothing: float) -> tuple[Line, ...]:
        """Replaced values lowest, then the values under a smoothed line, then training, then evaluation."""
        if metrics is not self._metrics or smoothing != self._smoothing:
            if smoothing != self._smoothing:
                self._averages = {}
            self._metrics, self._smoothing, self._made, self._positive = metrics, smoothing, {}, {}
        if group.title not in self._made:
            self._made[group.title] = (
                *_superseded(group, metrics), *_raw(group, metrics, smoothing), *self._shown(group, metrics)
            )  # fmt: skip
        return self._made[group.title]

    def any_positive(self, group: Group, metrics: Metrics, smoothing: float) -> bool:
        """Whether a logarithmic axis can show anything of its lines."""
        lines = self.of(group, metrics, smoothing)
        if group.title not in self._positive:
            self._positive[group.title] = any(
                len(line.values) > 0 and bool(np.fmax.reduce(line.values) > 0) for line in lines
            )
        return self._positive[group.title]

    def _shown(self, group: Group, metrics: Metrics) -> Iterator[Line]:
        for member in group.members:
            series = metrics[member.metric].effective
            values: Floats = series.values
            if self._smoothing and not member.evaluation:
                before = self._averages.get(member.metric)
                averages = continued(before, values, self._smoothing)
                self._averages[member.metric] = values, averages
                values = averages
            yield Line(printable(member.name), series.steps, values, member.ink, member.evaluation)


def continued(before: tuple[Floats, Floats] | None, values: Floats, weight: float) -> Floats:
    """What `smoothed` gives, from the averages of an earlier, shorter series where this one goes on from it.

    Args:
        before: values and averages of the earlier series, shape [m] each.
        values: the series now, shape [n].
        weight: of the past, 0 to 1, both excluded.
    """
    known = len(before[0]) if before is not None else 0
    reach = math.ceil(math.log(NEGLIGIBLE) / math.log(weight))
    # A resumed run replaces values in the middle. As bits, what is not a number is equal to itself.
    if before is None or known > len(values) or not _same_bits(before[0], values[:known]):
        return smoothed(values, weight)
    start = max(0, known - reach)
    return np.concatenate((before[1], smoothed(values[start:], weight)[known - start :]))


def _same_bits(some: Floats, others: Floats) -> bool:
    return np.array_equal(some.view(np.int64), others.view(np.int64))


def _superseded(group: Group, metrics: Metrics) -> Iterator[Line]:
    for member in group.members:
        for series in _ascending(metrics[member.metric].superseded):
            yield Line(
                member.name, series.steps, series.values, Ink.SUPERSEDED, member.evaluation, titled=False
            )


def _raw(group: Group, metrics: Metrics, smoothing: float) -> Iterator[Line]:
    for member in group.members:
        if smoothing and not member.evaluation:
            series = metrics[member.metric].effective
            yield Line(member.name, series.steps, series.values, RAW_INKS[member.ink], titled=False)


def _ascending(series: Series) -> list[Series]:
    """Pieces whose steps ascend: an attempt each, as long as they are few."""
    if not len(series):
        return []
    cuts = np.flatnonzero(np.diff(series.steps) <= 0) + 1
    if len(cuts) >= MOST_SUPERSEDED:
        order = np.argsort(series.steps, kind="stable")
        return [Series(series.steps[order], series.values[order], series.wall_s[order])]
    starts, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(series)]
    return [
        Series(series.steps[start:end], series.values[start:end], series.wall_s[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]
