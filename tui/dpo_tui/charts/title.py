"""First row of a chart: its title, and a value of each line."""

from __future__ import annotations

from collections.abc import Sequence

from dpo_telemetry.figures import number
from dpo_tui.charts.glyphs import Glyphs
from dpo_tui.charts.picture import Ink, Picture
from dpo_tui.charts.plot import Line
from dpo_tui.charts.ticks import step_label

TITLE_ROOM = 24
"""Columns that a title keeps when the values of the lines ask for room."""

Part = tuple[Ink, str]


def draw_title(
    picture: Picture,
    title: str,
    lines: Sequence[Line],
    glyphs: Glyphs,
    *,
    step: int | None = None,
    selected: bool = False,
) -> None:
    """Title on the left, the value of each line at `step` or its newest on the right; names give way first."""
    picture.codes[0] = ord(" ")
    picture.inks[0] = Ink.BLANK
    width = picture.codes.shape[1]
    shown = [line for line in lines if line.titled and len(line.values)]
    joined = [line for line in shown if not line.marked] or shown
    if selected:
        title = f"{glyphs.pointer} {title}"
    for chosen, write in (
        (shown, _named),
        (joined, _named),
        (joined, _unnamed),
        (joined[:1], _unnamed),
        ([], _unnamed),
    ):
        parts = write(chosen, glyphs, step)
        used = sum(len(text) + 2 for _, text in parts)
        if used + min(len(title), TITLE_ROOM) <= width:
            break
    room = width - used
    text = title if len(title) <= room else title[: max(0, room - 1)] + glyphs.ellipsis
    picture.put(0, 0, text, Ink.SELECTED if selected else Ink.TITLE)
    column = width - used + 2
    for ink, part in parts:
        picture.put(0, column, part, ink)
        column += len(part) + 2


def _named(lines: Sequence[Line], glyphs: Glyphs, step: int | None) -> list[Part]:
    return [
        (line.ink, f"{glyphs.marker if line.marked else glyphs.legend} {line.name} {_reading(line, step)}")
        for line in lines
    ]


def _unnamed(lines: Sequence[Line], glyphs: Glyphs, step: int | None) -> list[Part]:
    return [(line.ink, _reading(line, step)) for line in lines]


def _reading(line: Line, step: int | None) -> str:
    """A line's value at a step; an older one says of which step it is."""
    if step is None:
        return number(float(line.values[-1]))
    found = line.at(step)
    if found is None:
        return "n/a"
    return number(found[1]) if found[0] == step else f"{number(found[1])} at {step_label(found[0])}"
