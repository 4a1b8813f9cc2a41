"""The lines of a chart from the series of its metrics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dpo_telemetry.series.columns import Series
from dpo_telemetry.text import printable
from dpo_tui.charts.chart import Ink, Line
from dpo_tui.charts.downsample import Floats
from dpo_tui.charts.picture import RAW_INKS
from dpo_tui.charts.smooth import smoothed
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

    def of(self, group: Group, metrics: Metrics, smoothing: float) -> tuple[Line, ...]:
        """Replaced values lowest, then the values under a smoothed line, then training, then evaluation."""
        if metrics is not self._metrics or smoothing != self._smoothing:
            self._metrics, self._smoothing, self._made = metrics, smoothing, {}
        if group.title not in self._made:
            self._made[group.title] = (
                *_superseded(group, metrics), *_raw(group, metrics, smoothing), *_shown(group, metrics, smoothing)
            )  # fmt: skip
        return self._made[group.title]


def any_positive(lines: tuple[Line, ...]) -> bool:
    """Whether a logarithmic axis can show anything of these."""
    return any(len(line.values) and np.fmax.reduce(line.values) > 0 for line in lines)


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


def _shown(group: Group, metrics: Metrics, smoothing: float) -> Iterator[Line]:
    for member in group.members:
        series = metrics[member.metric].effective
        values: Floats = series.values if member.evaluation else smoothed(series.values, smoothing)
        yield Line(printable(member.name), series.steps, values, member.ink, member.evaluation)


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
