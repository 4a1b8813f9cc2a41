"""Lines, points, rules and marks inside the axes of a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpo_tui.charts import raster
from dpo_tui.charts.downsample import Columns, Floats, Ints
from dpo_tui.charts.glyphs import Glyphs
from dpo_tui.charts.picture import Ink, Picture
from dpo_tui.charts.scale import Scale

MARKER_SPACING = 8
"""Dot columns that a marker needs on average; denser series are joined."""


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """One series of a chart. Compared by identity."""

    name: str
    steps: Ints
    """Ascending, shape [n]."""
    values: Floats
    """Shape [n]; may hold NaN and infinities."""
    ink: Ink = Ink.TRAIN
    marked: bool = False
    """Draw single points instead of a line while there is room between them."""
    titled: bool = True
    """Say its name and value in the title."""

    def at(self, step: int) -> tuple[int, float] | None:
        """The newest point at or before a step; None before the first."""
        found = int(np.searchsorted(self.steps, step, side="right")) - 1
        return (int(self.steps[found]), float(self.values[found])) if found >= 0 else None


def nearest_step(lines: Sequence[Line], start: int, end: int) -> int:
    """The logged step of [start, end) to point at: one that is not finite, else that nearest to the middle.

    The middle itself where no line has a point there.
    """
    middle = (start + max(start, end - 1)) // 2
    nearest: int | None = None
    for line in lines:
        low, high = np.searchsorted(line.steps, (start, end)).tolist()
        if not line.titled or low == high:
            continue
        broken = np.flatnonzero(~np.isfinite(line.values[low:high]))
        if len(broken):
            return int(line.steps[low + broken[0]])
        steps = line.steps[low:high]
        found = int(steps[np.abs(steps - middle).argmin()])
        if nearest is None or abs(found - middle) < abs(nearest - middle):
            nearest = found
    return middle if nearest is None else nearest


def draw_rules(picture: Picture, rules: Sequence[int], glyphs: Glyphs) -> None:
    """A vertical rule at each of these steps."""
    for step in rules:
        column = picture.plot.column_of(step)
        if column is not None:
            picture.codes[1 : 1 + picture.plot.rows, column] = ord(glyphs.rule)
            picture.inks[1 : 1 + picture.plot.rows, column] = Ink.RULE


def draw_lines(
    picture: Picture, lines: Sequence[Line], columns: Sequence[Columns], scale: Scale, glyphs: Glyphs
) -> None:
    """Joined lines first, then the points of sparse ones over them."""
    codes, inks = _inside(picture)
    height = codes.shape[0]
    bits = np.zeros(codes.shape, dtype=np.uint8)
    spaced = [_spaced(line, part) for line, part in zip(lines, columns, strict=True)]
    for line, part, apart in zip(lines, columns, spaced, strict=True):
        if apart:
            continue
        dots = raster.cell_bits(raster.line_dots(part, scale.bounds, height * raster.DOTS_HIGH))
        bits |= dots
        np.copyto(inks, np.uint8(line.ink), where=dots > 0)
    np.copyto(codes, glyphs.cells[bits], where=bits > 0)
    for line, part, apart in zip(lines, columns, spaced, strict=True):
        points = np.flatnonzero(np.isfinite(part.last))
        if apart and len(points):
            rows = raster.rows_of(part.last[points], scale.bounds, height * raster.DOTS_HIGH)
            at = (rows // raster.DOTS_HIGH).astype(int), points // raster.DOTS_WIDE
            codes[at] = ord(glyphs.marker)
            inks[at] = line.ink


def draw_marks(picture: Picture, lines: Sequence[Line], columns: Sequence[Columns], glyphs: Glyphs) -> None:
    """A mark for each column with a value that no line can show, on top of everything."""
    codes, inks = _inside(picture)
    for line, part in zip(lines, columns, strict=True):
        ink = line.ink if line.ink is Ink.SUPERSEDED else Ink.NONFINITE
        for flags, row, glyph, of in (
            (part.below, -1, glyphs.below, line.ink),
            (part.positive_infinity, 0, glyphs.above, ink),
            (part.negative_infinity, -1, glyphs.below, ink),
            (part.nan, -1, glyphs.not_a_number, ink),
        ):
            if flags is not None and flags.any():
                cells = raster.cells_with(flags)
                codes[row, cells] = ord(glyph)
                inks[row, cells] = of


def _inside(picture: Picture) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    rows, left = slice(1, 1 + picture.plot.rows), picture.plot.left
    return picture.codes[rows, left:], picture.inks[rows, left:]


def _spaced(line: Line, columns: Columns) -> bool:
    """Whether to draw single points: a joined line would hide what lies under it, or be a dot."""
    points = int(np.count_nonzero(columns.filled))
    return points == 1 or (line.marked and points <= len(columns.filled) // MARKER_SPACING)
