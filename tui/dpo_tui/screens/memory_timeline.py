"""Memory over time as a chart, with the plan and the card as lines across it."""

from __future__ import annotations

import numpy as np

from dpo_telemetry.figures import size
from dpo_telemetry.reader import memory_history
from dpo_telemetry.reader.memory_history import Floats
from dpo_tui.charts.axis import Axis
from dpo_tui.charts.chart import Ink, Line, Picture, draw
from dpo_tui.charts.glyphs import Glyphs
from dpo_tui.charts.inks import INK_CSS
from dpo_tui.charts.widget import DrawnChart
from dpo_tui.panels.memory_bar import planned_mark
from dpo_tui.signs import Signs
from dpo_tui.views.memory import MemoryView

UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
PER_S = 1000
"""Chart steps a second."""
MEASURED: tuple[tuple[str, str, Ink], ...] = (
    (memory_history.STANDING, "s tensors", Ink.TRAIN),
    (memory_history.PEAK_ALLOCATED, "p peak", Ink.TRAIN),
    (memory_history.RESERVED, "r reserved", Ink.EVAL),
    (memory_history.RSS, "m RSS", Ink.REJECTED),
)
"""Figure of a rank, its letter and name, and its ink. Tensors and RSS are shown where torch tells no peak."""
ON_A_CARD = (memory_history.PEAK_ALLOCATED, memory_history.RESERVED)
PLAN, CARD = Ink.SUPERSEDED, Ink.RULE


class MemoryTimeline(DrawnChart):
    """Draws the lines of one rank or card; draws again when there is something new."""

    DEFAULT_CSS = f"MemoryTimeline {{ {INK_CSS} }}"

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view: MemoryView | None = None
        self.from_zero = True
        """Whether the value axis begins at 0 and holds plan and card, or fits what was measured."""
        self._glyphs: Glyphs = signs.charts

    def show(self, view: MemoryView) -> None:
        """Draw this view from now on."""
        changed = self.view is None or self.view.revision != view.revision
        self.view = view
        if changed:
            self.draw_again()

    def toggle_scale(self) -> None:
        """From 0 up to the card, or as near as the measured lines allow."""
        self.from_zero = not self.from_zero
        self.draw_again()

    def picture(self, width: int, height: int) -> Picture:
        """The measured lines, with plan and card across them."""
        view = self.view or MemoryView()
        return picture(view, width, height, self._glyphs, from_zero=self.from_zero)


def picture(view: MemoryView, width: int, height: int, glyphs: Glyphs, *, from_zero: bool = True) -> Picture:
    """The chart: measured lines with a letter at their ends, and named lines for plan and card."""
    lines, unit = _lines(view)
    if not lines:
        return draw((), width, height, title="memory over time", glyphs=glyphs)
    last = max(int(line.steps[-1]) for line in lines)
    levels = _levels(view) if from_zero else ()
    across = [
        Line(name, np.array([0, max(1, last)]), np.full(2, count / unit[1]), ink, titled=False)
        for name, count, ink in levels
    ]
    axis = Axis("time", np.array([0.0, max(1, last)]), np.array([0.0, max(1, last) / PER_S]))
    drawn = draw(
        [*across, *lines], width, height, title=f"memory over time, {unit[0]}", step_range=(0, max(1, last)),
        axis=axis, glyphs=glyphs,
    )  # fmt: skip
    for line in lines:
        _letter(drawn, line)
    for name, count, ink in levels:
        if count:
            _label(drawn, f" {name} {size(count)} ", ink)
    return drawn


def _lines(view: MemoryView) -> tuple[list[Line], tuple[str, int]]:
    """Measured lines over milliseconds since the first sample, and the unit of their values."""
    columns: list[tuple[str, Ink, Floats, Floats]] = []
    if view.samples is not None:
        figures = view.samples.figures
        on_card = bool(np.isfinite(figures[memory_history.PEAK_ALLOCATED]).any())
        for name, title, ink in MEASURED:
            if (name in ON_A_CARD) == on_card and np.isfinite(figures[name]).any():
                columns.append((title, ink, view.samples.wall_s, figures[name]))
    if view.card_samples is not None and np.isfinite(view.card_samples.figures[memory_history.USED]).any():
        used = view.card_samples.figures[memory_history.USED]
        columns.append(("u card used", Ink.CHOSEN, view.card_samples.wall_s, used))
    if not columns:
        return [], UNITS[0]
    largest = max(float(np.nanmax(values)) for _, _, _, values in columns)
    unit = next((unit for unit in UNITS if largest >= unit[1]), UNITS[-1])
    origin_s = min(float(times[0]) for _, _, times, _ in columns)
    lines = []
    for title, ink, times, values in columns:
        known = np.isfinite(values)
        steps = np.maximum.accumulate(np.rint((times[known] - origin_s) * PER_S).astype(np.int64))
        lines.append(Line(title, steps, values[known] / unit[1], ink))
    return lines, unit


def _levels(view: MemoryView) -> tuple[tuple[str, int, Ink], ...]:
    """Lines across the chart, 0 included: it is where a scale begins that does not exaggerate."""
    row = view.row
    if row is None:
        return ()
    found = [("", 0, Ink.GRID)]
    if planned_mark(row):
        found.append(("plan", planned_mark(row), PLAN))
    if row.capacity_bytes:
        found.append(("card", row.capacity_bytes, CARD))
    return tuple(found)


def _letter(drawn: Picture, line: Line) -> None:
    """The line's letter where it ends, so that lines are told apart without colours."""
    inks = drawn.inks[1 : 1 + drawn.plot.rows, drawn.plot.left :]
    rows, columns = np.nonzero(inks == line.ink)
    if len(columns):
        at = int(columns.argmax())
        drawn.codes[1 + rows[at], drawn.plot.left + columns[at]] = ord(line.name[0])


def _label(drawn: Picture, text: str, ink: Ink) -> None:
    """A name on a line across, at the left, where it crosses the least."""
    inks = drawn.inks[1 : 1 + drawn.plot.rows, drawn.plot.left :]
    rows, _ = np.nonzero(inks == ink)
    if len(rows) and drawn.plot.left + 2 + len(text) < drawn.codes.shape[1]:
        drawn.put(1 + int(np.bincount(rows).argmax()), drawn.plot.left + 2, text, ink)
