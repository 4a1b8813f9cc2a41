"""The chart on the screen: a widget that draws as Textual strips."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import ClassVar

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from dpo_tui.charts.chart import Line, Picture, draw
from dpo_tui.charts.glyphs import UNICODE, Glyphs
from dpo_tui.charts.inks import COMPONENTS, INK_CSS, ink_styles
from dpo_tui.charts.strips import to_strips


class DrawnChart(Widget):
    """A chart that is drawn once a change, a size or a theme."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(COMPONENTS.values())

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._strips: list[Strip] | None = None
        self._styles: list[Style] | None = None

    def picture(self, width: int, height: int) -> Picture:
        """What it shows now."""
        raise NotImplementedError

    def draw_again(self) -> None:
        """What it shows is another thing now."""
        self._strips = None
        self.refresh()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Rows of the chart within `crop`; the whole chart is drawn once a change.

        Taking over here, below Textual's borders, padding and tints, halves the cost of a
        frame; a chart has none of them, and the line filters are applied to its few styles.
        """
        width, height = self.size
        strips = self._strips
        if strips is None or len(strips) != height or (strips and strips[0].cell_length != width):
            strips = self._strips = self._draw(width, height)
        if crop.column_span != (0, width):
            strips = [strip.crop(crop.x, crop.right) for strip in strips]
        return strips[crop.y : crop.bottom]

    def notify_style_update(self) -> None:
        """Another theme means other colours."""
        super().notify_style_update()
        self._styles = self._strips = None

    def _draw(self, width: int, height: int) -> list[Strip]:
        if self._styles is None:
            self._styles = ink_styles(self)
        return to_strips(self.picture(width, height), self._styles)


class LineChart(DrawnChart):
    """Lines over steps with a title; redraws when it is given new lines or another size."""

    DEFAULT_CSS = f"LineChart {{ {INK_CSS} }}"

    def __init__(self, title: str, *, glyphs: Glyphs = UNICODE, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title = title
        self.glyphs = glyphs
        self.lines: tuple[Line, ...] = ()
        self.step_range: tuple[int, int] | None = None

    def show(self, lines: Sequence[Line], step_range: tuple[int, int] | None = None) -> None:
        """Draw these lines from now on, over `step_range` or over all their steps; the same ones cost nothing."""
        same = len(lines) == len(self.lines) and all(map(is_, lines, self.lines))
        if same and step_range == self.step_range and self._strips is not None:
            return
        self.lines = tuple(lines)
        self.step_range = step_range
        self.draw_again()

    def picture(self, width: int, height: int) -> Picture:
        """The lines within their steps."""
        return draw(
            self.lines, width, height, title=self.title, step_range=self.step_range, glyphs=self.glyphs
        )
