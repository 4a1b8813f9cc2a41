"""Many charts that share their steps, drawn as one widget: a chart costs its cells and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from dpo_tui.charts.axis import STEP, Axis
from dpo_tui.charts.chart import draw, point_at
from dpo_tui.charts.glyphs import UNICODE, Glyphs
from dpo_tui.charts.inks import COMPONENTS, INK_CSS, ink_styles
from dpo_tui.charts.layout import place_at, tile_region
from dpo_tui.charts.picture import Picture
from dpo_tui.charts.plot import Line, nearest_step
from dpo_tui.charts.strips import to_strips

WHEEL = 0.8
"""What a notch of the wheel leaves of the width in sight."""


@dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """One chart."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What all charts of a wall have in common."""

    steps: tuple[int, int] | None = None
    """First and last step in sight; None is all of them."""
    axis: Axis = STEP
    log: bool = False
    rules: tuple[int, ...] = ()


class ChartWall(Widget):
    """Charts in a grid. Draws only those that changed, and sends only the cells that changed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(COMPONENTS.values())
    DEFAULT_CSS = f"ChartWall {{ height: 1fr; {INK_CSS} }}"

    class Resized(Message):
        """Another number of charts may fit."""

    class Hovered(Message):
        """The mouse points at a step; None where it left the charts."""

        def __init__(self, step: int | None) -> None:
            super().__init__()
            self.step = step

    class Zoomed(Message):
        """The wheel turned over a step."""

        def __init__(self, factor: float, step: int) -> None:
            super().__init__()
            self.factor = factor
            self.step = step

    class Panned(Message):
        """The charts were dragged by a share of their width."""

        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

    class Picked(Message):
        """A chart was clicked, or double clicked."""

        def __init__(self, place: int, *, twice: bool) -> None:
            super().__init__()
            self.place = place
            self.twice = twice

    def __init__(self, *, glyphs: Glyphs = UNICODE, id: str | None = None) -> None:
        super().__init__(id=id)
        self.glyphs = glyphs
        self.tiles: tuple[Tile, ...] = ()
        self.view = View()
        self.grid = (1, 1)
        """Columns and rows."""
        self.selected: int | None = None
        """Place of the chart that the keys act on."""
        self.cursor: int | None = None
        """Step that is pointed at in every chart."""
        self.empty = ""
        """Said where there is no chart."""
        self.charts_drawn = 0
        """How often a chart was drawn anew; pointing at another step is none."""
        self._bases: dict[str, tuple[Tile, View, tuple[int, int], Picture]] = {}
        self._picture = Picture.blank(0, 0)
        self._strips: list[Strip] | None = None
        self._styles: list[Style] | None = None
        self._dragged_from: int | None = None
        self._dragged = False

    def show(
        self,
        tiles: Sequence[Tile],
        view: View,
        grid: tuple[int, int],
        *,
        selected: int | None = None,
        cursor: int | None = None,
        empty: str = "no data yet",
    ) -> None:
        """Show these charts from now on."""
        self.tiles, self.view, self.grid = tuple(tiles), view, grid
        self.selected, self.cursor, self.empty = selected, cursor, empty
        before, self._picture = self._picture, self._compose_picture()
        self._strips = None
        if before.codes.shape != self._picture.codes.shape:
            self.refresh()
        elif changed := list(self._changed(before)):
            self.refresh(*changed)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Rows within `crop`; below Textual's borders and tints, of which a wall has none."""
        width, height = self.size
        if self._picture.codes.shape != (height, width):
            self._picture, self._strips = self._compose_picture(), None
        if self._strips is None:
            self._styles = self._styles or ink_styles(self)
            self._strips = to_strips(self._picture, self._styles)
        strips = self._strips
        if crop.column_span != (0, width):
            strips = [strip.crop(crop.x, crop.right) for strip in strips]
        return strips[crop.y : crop.bottom]

    def notify_style_update(self) -> None:
        """Another theme means other colours."""
        super().notify_style_update()
        self._styles = self._strips = None

    def neighbour(self, place: int, step: int, cells: int) -> int:
        """The step that lies some columns beside another in one of the charts, as far as the plot goes."""
        drawn = self._bases.get(self.tiles[place].title) if place < len(self.tiles) else None
        column = drawn[3].plot.column_of(step) if drawn is not None else None
        if drawn is None or column is None:
            return step
        plot = drawn[3].plot
        column = min(max(column + cells, plot.left), plot.left + len(plot.edges) // 2 - 1)
        steps = plot.steps_of(column)
        return nearest_step(self.tiles[place].lines, *steps) if steps is not None else step

    def step_at(self, x: int, y: int) -> int | None:
        """The step under a cell; a value that is not finite draws it to itself."""
        place = place_at(x, y, self.grid, self.size)
        if place is None or place >= len(self.tiles):
            return None
        drawn = self._bases.get(self.tiles[place].title)
        steps = drawn[3].plot.steps_of(x - tile_region(place, self.grid, self.size).x) if drawn else None
        return nearest_step(self.tiles[place].lines, *steps) if steps is not None else None

    def on_resize(self) -> None:
        """The screen decides anew what fits."""
        self.post_message(self.Resized())

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Point, or drag."""
        if self._dragged_from is None:
            self.post_message(self.Hovered(self.step_at(event.x, event.y)))
        elif event.x != self._dragged_from:
            width = max(1, tile_region(0, self.grid, self.size).width)
            self.post_message(self.Panned((self._dragged_from - event.x) / width))
            self._dragged_from, self._dragged = event.x, True

    def on_leave(self) -> None:
        """Nothing is pointed at any more."""
        self.post_message(self.Hovered(None))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """A drag may begin."""
        self._dragged_from, self._dragged = event.x, False
        self.capture_mouse()

    def on_mouse_up(self) -> None:
        """It ends."""
        self._dragged_from = None
        self.release_mouse()

    def on_click(self, event: events.Click) -> None:
        """Pick a chart, unless this was the end of a drag."""
        place = place_at(event.x, event.y, self.grid, self.size)
        if place is not None and place < len(self.tiles) and not self._dragged:
            self.post_message(self.Picked(place, twice=event.chain == 2))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Nearer."""
        self._wheel(event, WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Farther."""
        self._wheel(event, 1 / WHEEL)

    def _wheel(self, event: events.MouseEvent, factor: float) -> None:
        step = self.step_at(event.x, event.y)
        if step is not None:
            event.stop()
            self.post_message(self.Zoomed(factor, step))

    def _compose_picture(self) -> Picture:
        width, height = self.size
        whole = Picture.blank(width, height)
        if not self.tiles and height:
            whole.put_centred(height // 2, self.empty)
        kept = {}
        for place, tile in enumerate(self.tiles):
            region = tile_region(place, self.grid, self.size)
            base = kept[tile.title] = self._base(tile, (region.width, region.height))
            selected = place == self.selected
            picture = base[3]
            if selected or self.cursor is not None:
                picture = point_at(
                    picture, tile.lines, self.cursor, title=tile.title, glyphs=self.glyphs, selected=selected
                )
            at = slice(region.y, region.bottom), slice(region.x, region.right)
            whole.codes[at], whole.inks[at] = picture.codes, picture.inks
        self._bases = kept
        return whole

    def _base(self, tile: Tile, size: tuple[int, int]) -> tuple[Tile, View, tuple[int, int], Picture]:
        """The chart without what is pointed at; the one from before where nothing changed."""
        known = self._bases.get(tile.title)
        if known is not None and known[0].lines is tile.lines and known[1:3] == (self.view, size):
            return known
        self.charts_drawn += 1
        view = self.view
        picture = draw(
            tile.lines, *size, title=tile.title, step_range=view.steps, axis=view.axis, log=view.log,
            rules=view.rules, glyphs=self.glyphs,
        )  # fmt: skip
        return tile, view, size, picture

    def _changed(self, before: Picture) -> Iterator[Region]:
        """Of each chart, the smallest box around the changed cells of its title and of its plot."""
        changed = (before.codes != self._picture.codes) | (before.inks != self._picture.inks)
        if not changed.any():
            return
        columns, rows = self.grid
        for place in range(columns * rows):
            region = tile_region(place, self.grid, self.size)
            title, plot = (
                Region(*region.offset, region.width, min(1, region.height)),
                region.shrink((1, 0, 0, 0)),
            )
            for part in (title, plot):
                cells = changed[part.y : part.bottom, part.x : part.right]
                if cells.any():
                    across, down = np.flatnonzero(cells.any(axis=0)), np.flatnonzero(cells.any(axis=1))
                    yield Region(
                        part.x + int(across[0]), part.y + int(down[0]),
                        int(across[-1] - across[0]) + 1, int(down[-1] - down[0]) + 1,
                    )  # fmt: skip
                    cells[:] = False
        if changed.any():
            yield self.size.region
