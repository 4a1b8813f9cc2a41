"""The widget around a panel's text."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from dpo_tui.signs import UNICODE, Signs
from dpo_tui.snapshot import Snapshot

Draw = Callable[[Snapshot, int, int, Signs], list[Content]]
"""Snapshot, width, height and signs to at most `height` lines."""


UNBOUNDED = 10_000
"""A height that every panel fits."""


class Panel(Widget):
    """Shows the lines that `draw` makes of the newest snapshot."""

    DEFAULT_CSS = "Panel { text-wrap: nowrap; text-overflow: ellipsis; }"

    def __init__(self, draw: Draw, *, signs: Signs = UNICODE, id: str | None = None) -> None:
        super().__init__(id=id)
        self._draw = draw
        self._signs = signs
        self._snapshot: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Draw this snapshot from now on."""
        before = self._line_count(self.size.width) if self._auto_height else 0
        self._snapshot = snapshot
        self.refresh(layout=self._auto_height and before != self._line_count(self.size.width))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as there are to show, where the style sheet asks for that."""
        return self._line_count(width)

    def render(self) -> Content:
        """The lines that fit."""
        width, height = self.size
        if self._snapshot is None or not width or not height:
            return Content("")
        lines = self._draw(self._snapshot, width, height, self._signs)
        return Content("\n").join(lines[:height])

    @property
    def _auto_height(self) -> bool:
        return self.styles.auto_dimensions

    def _line_count(self, width: int) -> int:
        if self._snapshot is None or not width:
            return 1
        return len(self._draw(self._snapshot, width, UNBOUNDED, self._signs))


def spread(left: Content, right: Content, width: int) -> Content:
    """`left` at the left edge and `right` at the right one; `right` gives way when both do not fit."""
    gap = width - left.cell_length - right.cell_length
    if gap < 2:
        return left.truncate(width, ellipsis=True)
    return Content.assemble(left, " " * gap, right)


def heading(title: str, right: Content, width: int) -> Content:
    """First line of a panel."""
    return spread(Content.styled(title, "bold"), right, width)
