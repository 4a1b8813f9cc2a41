"""A whole chart as cells: title, axes, lines and marks. Pure: numbers in, cells out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from dpo_telemetry.figures import number
from dpo_tui.charts import raster, ticks
from dpo_tui.charts.downsample import Columns, Floats, Ints, downsample
from dpo_tui.charts.glyphs import UNICODE, Glyphs

LABEL_WIDTH = 6
"""Smallest width of the value labels, so that the plots of stacked charts line up."""
NARROWEST_WITH_LABELS = 24
MARKER_SPACING = 8
"""Dot columns that a marker needs on average; denser series are joined."""


class Ink(IntEnum):
    """What a cell shows; the widget gives each its colour."""

    BLANK = 0
    TITLE = 1
    LABEL = 2
    GRID = 3
    NONFINITE = 4
    TRAIN = 5
    EVAL = 6
    CHOSEN = 7
    REJECTED = 8


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart."""

    name: str
    steps: Ints
    """Ascending, shape [n]."""
    values: Floats
    """Shape [n]; may hold NaN and infinities."""
    ink: Ink = Ink.TRAIN
    marked: bool = False
    """Draw single points instead of a line while there is room between them."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Cells of a chart."""

    codes: NDArray[np.uint32]
    """Unicode code points, shape [height, width]."""
    inks: NDArray[np.uint8]
    """`Ink` of each cell, shape [height, width]."""

    def text(self) -> str:
        """All rows in one string."""
        return self.codes.tobytes().decode(f"utf-32-{sys.byteorder[0]}e")

    def rows(self) -> list[str]:
        """The text of each row."""
        height, width = self.codes.shape
        text = self.text()
        return [text[row * width : (row + 1) * width] for row in range(height)]


def draw(
    lines: Sequence[Line],
    width: int,
    height: int,
    *,
    title: str = "",
    step_range: tuple[int, int] | None = None,
    glyphs: Glyphs = UNICODE,
) -> Picture:
    """Draw `lines` into `width` x `height` cells; later lines lie on top.

    `step_range` is the first and last step shown; left out, everything is shown.
    """
    picture = Picture(
        np.full((max(height, 0), max(width, 0)), ord(" "), dtype=np.uint32),
        np.zeros((max(height, 0), max(width, 0)), dtype=np.uint8),
    )
    if width < 2 or height < 1:
        return picture
    _draw_title(picture, title, lines, glyphs)
    if height < 2:
        return picture
    steps = step_range or _whole_range(lines)
    if steps is None:
        _put_centred(picture, height // 2, "no data yet")
        return picture
    plot_height = height - 2 if height >= 4 else height - 1
    guess = LABEL_WIDTH + 1 if width >= NARROWEST_WITH_LABELS else 0
    columns = [_columns(line, steps, width - guess) for line in lines]
    bounds = _bounds(columns)
    left = _draw_value_axis(picture, bounds, plot_height, glyphs)
    if left != guess:
        columns = [_columns(line, steps, width - left) for line in lines]
    if plot_height == height - 2:
        _draw_step_axis(picture, steps, left)
    _draw_plot(picture, lines, columns, bounds, (left, plot_height), glyphs)
    return picture


def _bounds(columns: Sequence[Columns]) -> tuple[float, float] | None:
    """Lowest and highest finite value of all lines, apart from each other; None without any."""
    found = [bounds for part in columns if (bounds := part.bounds()) is not None]
    if not found:
        return None
    low, high = min(low for low, _ in found), max(high for _, high in found)
    if high / 4 - low / 4 <= 0:
        pad = abs(low) / 10 or 1.0
        low, high = max(low - pad, -sys.float_info.max), min(high + pad, sys.float_info.max)
    return low, high


def _columns(line: Line, steps: tuple[int, int], width: int) -> Columns:
    return downsample(line.steps, line.values, steps, width * raster.DOTS_WIDE)


def _whole_range(lines: Sequence[Line]) -> tuple[int, int] | None:
    ends = [(int(line.steps[0]), int(line.steps[-1])) for line in lines if len(line.steps)]
    return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None


def _draw_value_axis(
    picture: Picture, bounds: tuple[float, float] | None, plot_height: int, glyphs: Glyphs
) -> int:
    """Labels and guide lines; returns the width that the labels take."""
    width = picture.codes.shape[1]
    if width < NARROWEST_WITH_LABELS:
        return 0
    if bounds is None:
        return LABEL_WIDTH + 1
    marks = ticks.value_ticks(*bounds, max(2, plot_height * 2 // 5))
    labels = ticks.value_labels(marks)
    left = max([LABEL_WIDTH, *map(len, labels)]) + 1
    if left > width // 2:
        return 0
    rows = raster.rows_of(np.array(marks), bounds, plot_height * raster.DOTS_HIGH) // raster.DOTS_HIGH
    taken: set[int] = set()
    for row, label in zip(rows.astype(int).tolist(), labels, strict=True):
        if row not in taken:
            taken.add(row)
            _put(picture, row + 1, left - 1 - len(label), label, Ink.LABEL)
            picture.codes[row + 1, left:] = ord(glyphs.grid)
            picture.inks[row + 1, left:] = Ink.GRID
    return left


def _draw_step_axis(picture: Picture, steps: tuple[int, int], left: int) -> None:
    """Step labels under their columns, with at least one blank between them."""
    height, width = picture.codes.shape
    room = width - left
    span = max(1, steps[1] - steps[0])
    free_from = 0
    if left > LABEL_WIDTH:
        _put(picture, height - 1, left - 5, "step", Ink.LABEL)
    for step in ticks.step_ticks(*steps, max(2, room // 9)):
        label = ticks.step_label(step)
        centre = left + round((step - steps[0]) / span * (room - 1))
        start = min(max(centre - len(label) // 2, left), width - len(label))
        if start >= max(free_from, left):
            _put(picture, height - 1, start, label, Ink.LABEL)
            free_from = start + len(label) + 1


def _draw_plot(
    picture: Picture,
    lines: Sequence[Line],
    columns: Sequence[Columns],
    bounds: tuple[float, float] | None,
    place: tuple[int, int],
    glyphs: Glyphs,
) -> None:
    """Lines, then markers, then the marks of non-finite values on top of everything."""
    left, plot_height = place
    codes = picture.codes[1 : 1 + plot_height, left:]
    inks = picture.inks[1 : 1 + plot_height, left:]
    if bounds is not None:
        _draw_lines(codes, inks, lines, columns, bounds, glyphs)
    for part in columns:
        _draw_marks(codes, inks, part, glyphs)


def _draw_lines(
    codes: NDArray[np.uint32],
    inks: NDArray[np.uint8],
    lines: Sequence[Line],
    columns: Sequence[Columns],
    bounds: tuple[float, float],
    glyphs: Glyphs,
) -> None:
    height = codes.shape[0]
    bits = np.zeros(codes.shape, dtype=np.uint8)
    spaced = [_spaced(line, part) for line, part in zip(lines, columns, strict=True)]
    for line, part, apart in zip(lines, columns, spaced, strict=True):
        if apart:
            continue
        dots = raster.cell_bits(raster.line_dots(part, bounds, height * raster.DOTS_HIGH))
        bits |= dots
        inks[dots > 0] = line.ink
    codes[bits > 0] = glyphs.cells[bits[bits > 0]]
    for line, part, apart in zip(lines, columns, spaced, strict=True):
        points = np.flatnonzero(np.isfinite(part.last))
        if apart and len(points):
            rows = raster.rows_of(part.last[points], bounds, height * raster.DOTS_HIGH) // raster.DOTS_HIGH
            at = rows.astype(int), points // raster.DOTS_WIDE
            codes[at] = ord(glyphs.marker)
            inks[at] = line.ink


def _spaced(line: Line, columns: Columns) -> bool:
    """Whether to draw single points: a joined line would hide what lies under it, or be a dot."""
    points = int(columns.filled.sum())
    return points == 1 or (line.marked and points <= len(columns.filled) // MARKER_SPACING)


def _draw_marks(codes: NDArray[np.uint32], inks: NDArray[np.uint8], columns: Columns, glyphs: Glyphs) -> None:
    for flags, row, glyph in (
        (columns.positive_infinity, 0, glyphs.above),
        (columns.negative_infinity, -1, glyphs.below),
        (columns.nan, -1, glyphs.not_a_number),
    ):
        cells = raster.cells_with(flags)
        codes[row, cells] = ord(glyph)
        inks[row, cells] = Ink.NONFINITE


def _draw_title(picture: Picture, title: str, lines: Sequence[Line], glyphs: Glyphs) -> None:
    """Title on the left, the last value of each line on the right; names give way first."""
    width = picture.codes.shape[1]
    shown = [line for line in lines if len(line.values)]
    joined = [line for line in shown if not line.marked] or shown
    for parts in (
        _named(shown, glyphs), _named(joined, glyphs), _unnamed(joined), _unnamed(joined[:1]), []
    ):  # fmt: skip
        used = sum(len(text) + 2 for _, text in parts)
        if used + min(len(title), 8) <= width:
            break
    room = width - used
    text = title if len(title) <= room else title[: max(0, room - 1)] + glyphs.ellipsis
    _put(picture, 0, 0, text, Ink.TITLE)
    column = width - used + 2
    for ink, part in parts:
        _put(picture, 0, column, part, ink)
        column += len(part) + 2


def _named(lines: Sequence[Line], glyphs: Glyphs) -> list[tuple[Ink, str]]:
    return [
        (
            line.ink,
            f"{glyphs.marker if line.marked else glyphs.legend} {line.name} {number(float(line.values[-1]))}",
        )
        for line in lines
    ]


def _unnamed(lines: Sequence[Line]) -> list[tuple[Ink, str]]:
    return [(line.ink, number(float(line.values[-1]))) for line in lines]


def _put(picture: Picture, row: int, column: int, text: str, ink: Ink) -> None:
    width = picture.codes.shape[1]
    text = text[: max(0, width - column)]
    if text:
        picture.codes[row, column : column + len(text)] = [ord(character) for character in text]
        picture.inks[row, column : column + len(text)] = ink


def _put_centred(picture: Picture, row: int, text: str) -> None:
    _put(picture, row, max(0, (picture.codes.shape[1] - len(text)) // 2), text, Ink.LABEL)
