"""A whole chart as cells: title, axes, lines and marks. Pure: numbers in, cells out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dpo_tui.charts import plot, raster
from dpo_tui.charts.axis import STEP, Axis
from dpo_tui.charts.downsample import Columns, Ints, downsample
from dpo_tui.charts.glyphs import UNICODE, Glyphs
from dpo_tui.charts.picture import Ink, Picture, Plot
from dpo_tui.charts.plot import Line
from dpo_tui.charts.scale import Scale, scaled
from dpo_tui.charts.title import draw_title

__all__ = ["Ink", "Line", "Picture", "draw", "point_at"]

LABEL_WIDTH = 6
"""Smallest width of the value labels, so that the plots of stacked charts line up."""
NARROWEST_WITH_LABELS = 24


def draw(
    lines: Sequence[Line],
    width: int,
    height: int,
    *,
    title: str = "",
    step_range: tuple[int, int] | None = None,
    axis: Axis = STEP,
    log: bool = False,
    rules: Sequence[int] = (),
    glyphs: Glyphs = UNICODE,
) -> Picture:
    """Draw `lines` into `width` x `height` cells; later lines lie on top.

    `step_range` is the first and last step shown; left out, everything is shown. `rules` are
    steps at which a vertical rule stands. `log` asks for a logarithmic y axis, which a chart
    gets as soon as one of its values is positive.
    """
    picture = Picture.blank(width, height)
    if width < 2 or height < 1:
        return picture
    draw_title(picture, title, lines, glyphs)
    if height < 2:
        return picture
    steps = step_range or whole_range(lines)
    if steps is None:
        picture.put_centred(height // 2, "no data yet")
        return picture
    rows = height - 2 if height >= 4 else height - 1
    left = LABEL_WIDTH + 1 if width >= NARROWEST_WITH_LABELS else 0
    edges, columns = _columns(lines, steps, axis, width - left)
    positions, scale = scaled(columns, log)
    marks = _value_labels(scale, rows, width)
    if _label_width(marks, width) != left:
        left = _label_width(marks, width)
        edges, columns = _columns(lines, steps, axis, width - left)
        positions, scale = scaled(columns, log)
    picture = replace(picture, plot=Plot(left, rows, edges))
    if scale is not None and marks is not None and left:
        _draw_value_axis(picture, marks, scale, glyphs)
    if rows == height - 2:
        _draw_step_axis(picture, steps, axis)
    plot.draw_rules(picture, rules, glyphs)
    if scale is not None:
        plot.draw_lines(picture, lines, positions, scale, glyphs)
    plot.draw_marks(picture, lines, positions, glyphs)
    return picture


def point_at(
    picture: Picture,
    lines: Sequence[Line],
    step: int | None,
    *,
    title: str,
    glyphs: Glyphs,
    selected: bool = False,
) -> Picture:
    """The same picture with a line through `step`, and in its title the values there.

    `selected` marks the title as that of the chart that the keys act on.
    """
    pointed = replace(picture, codes=picture.codes.copy(), inks=picture.inks.copy())
    if pointed.codes.shape[0] < 1 or pointed.codes.shape[1] < 2:
        return pointed
    draw_title(pointed, title, lines, glyphs, step=step, selected=selected)
    column = picture.plot.column_of(step) if step is not None else None
    if column is not None:
        rows = slice(1, 1 + picture.plot.rows)
        codes, inks = pointed.codes[rows, column], pointed.inks[rows, column]
        free = (inks == Ink.BLANK) | (inks == Ink.GRID) | (inks == Ink.RULE)
        codes[free], inks[free] = ord(glyphs.cross), Ink.CROSS
    return pointed


def whole_range(lines: Sequence[Line]) -> tuple[int, int] | None:
    """First and last step of all lines; None without any point."""
    ends = [(int(line.steps[0]), int(line.steps[-1])) for line in lines if len(line.steps)]
    return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None


def _columns(
    lines: Sequence[Line], steps: tuple[int, int], axis: Axis, width: int
) -> tuple[Ints, list[Columns]]:
    edges = axis.edges(steps, width * raster.DOTS_WIDE)
    return edges, [downsample(line.steps, line.values, steps, edges) for line in lines]


def _value_labels(scale: Scale | None, rows: int, width: int) -> tuple[list[float], list[str]] | None:
    if scale is None or width < NARROWEST_WITH_LABELS:
        return None
    return scale.ticks(max(2, rows * 2 // 5))


def _label_width(marks: tuple[list[float], list[str]] | None, width: int) -> int:
    """Columns that the value labels take, with the blank after them."""
    if width < NARROWEST_WITH_LABELS:
        return 0
    left = max([LABEL_WIDTH, *map(len, marks[1])] if marks else [LABEL_WIDTH]) + 1
    return left if left <= width // 2 else 0


def _draw_value_axis(
    picture: Picture, marks: tuple[list[float], list[str]], scale: Scale, glyphs: Glyphs
) -> None:
    """Labels and guide lines, each on a row of its own."""
    left, plot_rows = picture.plot.left, picture.plot.rows
    rows = raster.rows_of(np.array(marks[0]), scale.bounds, plot_rows * raster.DOTS_HIGH) // raster.DOTS_HIGH
    labelled: dict[int, str] = {}
    for row, label in zip(rows.astype(int).tolist(), marks[1], strict=True):
        if 0 <= row < plot_rows:
            labelled.setdefault(row + 1, label)
    guides = list(labelled)
    picture.codes[guides, left:] = ord(glyphs.grid)
    picture.inks[guides, left:] = Ink.GRID
    for row, label in labelled.items():
        picture.put(row, left - 1 - len(label), label, Ink.LABEL)


def _draw_step_axis(picture: Picture, steps: tuple[int, int], axis: Axis) -> None:
    """Labels under their columns, with at least one blank between them."""
    height, width = picture.codes.shape
    left = picture.plot.left
    room = width - left
    low, high = axis.position(steps[0]), axis.position(steps[1])
    name = axis.name if left > LABEL_WIDTH else ""
    text = name.rjust(left - 1)
    for position, label in axis.ticks(steps, max(2, room // 9)):
        centre = left + round((position - low) / max(high - low, 1e-300) * (room - 1))
        start = min(max(centre - len(label) // 2, left), width - len(label))
        if start >= len(text) + bool(text):
            text = text.ljust(start) + label
    picture.put(height - 1, 0, text, Ink.LABEL)
