"""Where the user looks: what is in sight, what is pointed at, which chart is selected. No widgets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpo_tui.charts.axis import STEP, Axis
from dpo_tui.screens.metrics import window as windows
from dpo_tui.screens.metrics.groups import Group
from dpo_tui.screens.metrics.window import Steps
from dpo_tui.views.series import Metrics


@dataclass(slots=True)
class Look:
    """State that keys and mouse change."""

    window: Steps | None = None
    """Steps in sight while not everything is."""
    following: bool = True
    cursor: int | None = None
    whole: Steps | None = None
    """First and last step of all metrics."""
    axis: Axis = STEP

    @property
    def steps(self) -> Steps | None:
        """First and last step in sight; None without any data."""
        if self.window is None or self.whole is None:
            return self.whole
        return self.window

    def see(self, whole: Steps | None) -> None:
        """There is newer data."""
        self.whole = whole
        if whole is not None and self.window is not None and self.following:
            self.window = windows.newest(self.window, whole)

    def zoom(self, factor: float, at: int | None = None) -> None:
        """Zoom around a step; left out, around the pointer, the newest step while following, or the middle."""
        if self.steps is None or self.whole is None:
            return
        first, last = self.steps
        if at is None:
            at = self.cursor if self.cursor is not None and first <= self.cursor <= last else None
        if at is None:
            at = last if self.following else (first + last) // 2
        self.window = windows.zoomed(self.steps, self.whole, self.axis, factor, at)
        self.following = self.window is None or (self.following and self.window[1] == self.whole[1])

    def pan(self, share: float) -> None:
        """Move by a share of the width; reaching the newest step is following it."""
        if self.window is None or self.whole is None:
            return
        self.window = windows.panned(self.window, self.whole, self.axis, share)
        if share > 0 and self.window[0] < self.whole[1] <= self.window[1]:
            self.following, self.window = True, windows.newest(self.window, self.whole)
        else:
            self.following = False

    def follow(self) -> None:
        """Go to the newest step and stay there, or stand still."""
        self.following = not self.following
        if self.whole is None:
            return
        if not self.following:
            self.window = self.steps
        elif self.window is not None:
            self.window = windows.newest(self.window, self.whole)

    def everything(self) -> None:
        """All steps, from now on too."""
        self.window, self.following = None, True

    def jump(self, step: int) -> None:
        """A step in the middle of what is in sight, pointed at."""
        self.window, self.following, self.cursor = windows.around(step), False, step

    def bring(self, step: int) -> None:
        """Point at a step; where it is out of sight, move there."""
        self.cursor = step
        if self.window is not None and not self.window[0] <= step <= self.window[1]:
            self.window = windows.around(step, max(1, (self.window[1] - self.window[0]) // 2))
            self.following = False


def whole_steps(metrics: Metrics) -> Steps | None:
    """First and last step of all metrics, replaced values included."""
    firsts, lasts = [], []
    for view in metrics.values():
        if len(steps := view.effective.steps):
            firsts.append(int(steps[0]))
            lasts.append(int(steps[-1]))
        if len(steps := view.superseded.steps):
            firsts.append(int(steps.min()))
            lasts.append(int(steps.max()))
    return (min(firsts), max(lasts)) if firsts else None


def nonfinite_after(
    groups: tuple[Group, ...], metrics: Metrics, step: int | None, forward: bool
) -> tuple[int, int] | None:
    """Place of the chart and step of the next value that is not finite; after the last one the first again."""
    beyond: list[tuple[int, int]] = []
    again: list[tuple[int, int]] = []
    for place, group in enumerate(groups):
        for member in group.members:
            series = metrics[member.metric].effective
            steps = series.steps[np.flatnonzero(~np.isfinite(series.values))]
            if not len(steps):
                continue
            again.append((int(steps[0 if forward else -1]), place))
            if step is None:
                continue
            at = (
                int(np.searchsorted(steps, step, "right"))
                if forward
                else int(np.searchsorted(steps, step)) - 1
            )
            if 0 <= at < len(steps):
                beyond.append((int(steps[at]), place))
    if not again:
        return None
    at, place = (min if forward else max)(beyond or again)
    return place, at
