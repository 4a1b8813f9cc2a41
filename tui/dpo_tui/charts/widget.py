"""The chart on the screen: a widget that draws as Textual strips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from dpo_tui.charts.chart import Ink, Line, Picture, draw
from dpo_tui.charts.glyphs import UNICODE, Glyphs

_COMPONENTS = {ink: f"line-chart--{ink.name.lower()}" for ink in Ink}


def to_strips(picture: Picture, styles: Sequence[Style]) -> list[Strip]:
    """One strip a row; `styles` are indexed by `Ink`."""
    height, width = picture.codes.shape
    if not width:
        return [Strip([], 0)] * height
    changes = np.ones((height, width), dtype=np.bool_)
    np.not_equal(picture.inks[:, 1:], picture.inks[:, :-1], out=changes[:, 1:])
    cuts = np.flatnonzero(changes)
    inks = picture.inks.ravel()[cuts].tolist()
    rows = np.searchsorted(cuts, np.arange(height + 1) * width).tolist()
    starts = [*cuts.tolist(), height * width]
    text = picture.text()
    segments = [
        Segment(text[start:end], styles[ink])
        for start, end, ink in zip(starts, starts[1:], inks, strict=False)
    ]
    return [Strip(segments[first:last], width) for first, last in pairwise(rows)]


class LineChart(Widget):
    """Lines over steps with a title; redraws when it is given new lines or another size."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(_COMPONENTS.values())

    DEFAULT_CSS = """
    LineChart {
        & > .line-chart--title { color: $foreground; text-style: bold; }
        & > .line-chart--label { color: $chart-label; }
        & > .line-chart--grid { color: $chart-grid; }
        & > .line-chart--nonfinite { color: $chart-nonfinite; text-style: bold; }
        & > .line-chart--train { color: $chart-train; }
        & > .line-chart--eval { color: $chart-eval; }
        & > .line-chart--chosen { color: $chart-chosen; }
        & > .line-chart--rejected { color: $chart-rejected; }
    }
    """

    def __init__(self, title: str, *, glyphs: Glyphs = UNICODE, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title = title
        self.glyphs = glyphs
        self.lines: tuple[Line, ...] = ()
        self.step_range: tuple[int, int] | None = None
        self._strips: list[Strip] | None = None
        self._styles: list[Style] | None = None

    def show(self, lines: Sequence[Line], step_range: tuple[int, int] | None = None) -> None:
        """Draw these lines from now on, over `step_range` or over all their steps."""
        self.lines = tuple(lines)
        self.step_range = step_range
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
        self._styles = None
        self._strips = None

    def _draw(self, width: int, height: int) -> list[Strip]:
        if self._styles is None:
            self._styles = [self._ink_style(ink) for ink in Ink]
        picture = draw(
            self.lines, width, height, title=self.title, step_range=self.step_range, glyphs=self.glyphs
        )
        return to_strips(picture, self._styles)

    def _ink_style(self, ink: Ink) -> Style:
        segments = [Segment("x", self.get_component_rich_style(_COMPONENTS[ink]))]
        for line_filter in self.get_line_filters():
            segments = line_filter.apply(segments, self.background_colors[1])
        return segments[0].style or Style.null()
