"""The line above the charts: what is shown, and where the pointer is."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.widget import Widget

from dpo_telemetry.figures import duration, number
from dpo_telemetry.text import printable
from dpo_tui.charts.axis import Axis
from dpo_tui.panels.panel import spread


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """Everything that the line says."""

    charts: int = 0
    of_charts: int = 0
    page: int = 0
    pages: int = 0
    steps: tuple[int, int] | None = None
    axis: str = "step"
    smoothing: float = 0.0
    log: bool = False
    following: bool = True
    filter: str = ""
    cursor: int | None = None
    axes: tuple[Axis, ...] = ()


class StatusLine(Widget):
    """One row of text."""

    DEFAULT_CSS = "StatusLine { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown = Shown()

    def show(self, shown: Shown) -> None:
        """Say this from now on."""
        width = self.size.width
        changed = status(shown, width).plain != status(self._shown, width).plain
        self._shown = shown
        if changed:
            self.refresh()

    def render(self) -> Content:
        """What fits."""
        return status(self._shown, self.size.width)


def status(shown: Shown, width: int) -> Content:
    """The whole line; where the pointer is stays longest."""
    parts = []
    if shown.pages > 1:
        parts.append(f"page {shown.page + 1}/{shown.pages}")
    charts = f"{shown.charts} of {shown.of_charts}" if shown.filter else f"{shown.charts}"
    parts.append(f"{charts} chart{'' if shown.charts == 1 and not shown.filter else 's'}")
    if shown.filter:
        parts.append(f"/{printable(shown.filter)}/")
    if shown.steps is not None:
        parts.append(f"steps {shown.steps[0]} to {shown.steps[1]}")
    if shown.axis != "step":
        parts.append(f"by {shown.axis}")
    if shown.smoothing:
        parts.append(f"EMA {shown.smoothing:g}")
    if shown.log:
        parts.append("log")
    parts.append("following" if shown.following else "standing still")
    right = Content.styled(_pointer(shown), "bold")
    left = Content.styled("  ".join(parts), "$muted")
    if right.cell_length and left.cell_length + right.cell_length + 2 > width:
        left = left.truncate(max(0, width - right.cell_length - 2), ellipsis=True)
    return spread(left, right, width)


def _pointer(shown: Shown) -> str:
    if shown.cursor is None:
        return ""
    words = [f"step {shown.cursor}"]
    for axis in shown.axes[1:]:
        position = axis.position(shown.cursor)
        words.append(duration(position) if axis.name == "time" else f"{axis.name} {number(position)}")
    return "  ".join(words)
