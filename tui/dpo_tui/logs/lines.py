"""The widget that draws the lines of a log: only those that are in sight."""

from __future__ import annotations

from bisect import bisect_left
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from dpo_tui.logs.levels import TRACEBACK, Level
from dpo_tui.logs.sieve import Question, Sieve, next_of
from dpo_tui.logs.tail import LogLine
from dpo_tui.views.logs import LogsView

MAX_HIGHLIGHTS = 200
"""Matches of one line that are marked."""

_STYLES = {Level.ERROR: "error", Level.WARNING: "warning", Level.DEBUG: "debug"}


class LogLines(ScrollView, can_focus=True):
    """Lines of a log, scrolled by hand or following the newest one."""

    class Moved(Message):
        """The following began or ended."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log-lines--error",
        "log-lines--warning",
        "log-lines--debug",
        "log-lines--source",
        "log-lines--match",
        "log-lines--current",
    }
    DEFAULT_CSS = """
    LogLines {
        scrollbar-size: 1 1;
        & > .log-lines--error { color: $error; }
        & > .log-lines--warning { color: $warning; }
        & > .log-lines--debug { color: $muted; }
        & > .log-lines--source { color: $primary; }
        & > .log-lines--match { text-style: reverse; }
        & > .log-lines--current { color: $accent; text-style: reverse bold; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = LogsView()
        self.question = Question()
        self.sieve = Sieve()
        self.following = True
        self.wrapping = False
        self.current: int | None = None
        """Number of the line that was jumped to."""
        self._cells = np.zeros(0, np.int64)
        self._starts = np.zeros(1, np.int64)
        self._source_cells = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """The text of the lines that are shown, oldest first."""
        return tuple(self.line(number).text for number in self.sieve.numbers)

    def line(self, number: int) -> LogLine:
        """A line that is kept, by its number."""
        return self.view.lines[number - self.view.first]

    def show(self, view: LogsView, question: Question) -> None:
        """Show these lines; stays at the end while following, else at the line that is on top."""
        if view is self.view and question == self.question:
            return
        top = self._top_number()
        if view.book != self.view.book:
            self.current, self.following, top = None, True, None
        self.view, self.question = view, question
        self.sieve.update(view, question)
        self._lay_out(top)

    def wrap(self, wrapping: bool) -> None:
        """Break long lines, or let them run out of sight to the right."""
        top = self._top_number()
        self.wrapping = wrapping
        self._lay_out(top)

    def follow(self, following: bool) -> None:
        """Go to the newest line and stay there, or stand still."""
        self.following = following
        if following:
            self.current = None
            self.scroll_end(animate=False, immediate=True)
            self.refresh()
        self.post_message(self.Moved())

    def go_to_match(self, *, backwards: bool = False) -> bool:
        """Bring the next match into sight; whether there is one."""
        number = self.sieve.match_after(self._from(backwards), backwards=backwards)
        return self._go_to(number)

    def go_to_traceback(self) -> bool:
        """Bring the first traceback into sight, or the next one when it stands on one; whether there is one."""
        found = [number for number in self.sieve.numbers if TRACEBACK in self.line(number).text]
        on_one = self.current in found
        number = next_of(found, self.current or 0) if on_one else next(iter(found), None)
        return self._go_to(number)

    def on_resize(self) -> None:
        """The end lies elsewhere now, and long lines break elsewhere."""
        self._lay_out(self._top_number())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Going up stops the following, reaching the end starts it again."""
        super().watch_scroll_y(old_value, new_value)
        before = self.following
        if new_value >= self.max_scroll_y:
            self.following = True
        elif new_value < old_value:
            self.following = False
        if before != self.following:
            self.post_message(self.Moved())

    def render_line(self, y: int) -> Strip:
        """One visible row."""
        left, top = self.scroll_offset
        row, style = top + y, self.rich_style
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        width = self.size.width
        if not 0 <= index < len(self.sieve.numbers):
            return Strip.blank(width, style)
        number = self.sieve.numbers[index]
        line, part = self.line(number), row - int(self._starts[index])
        text = Strip(self._segments(line, number, style))
        if self.wrapping:
            room = self._room()
            text = text.crop(part * room, (part + 1) * room)
            source = self._source(line if part == 0 else LogLine(""), style)
            return Strip([*source, *text]).adjust_cell_length(width, style)
        return Strip([*self._source(line, style), *text]).crop_extend(left, left + width, style)

    def _segments(self, line: LogLine, number: int, base: Style) -> list[Segment]:
        """The text with its matches marked."""
        name = _STYLES.get(line.level)
        style = base + self.get_component_rich_style(f"log-lines--{name}", partial=True) if name else base
        if number == self.current and self.question.pattern is None:
            return [Segment(line.text, style + Style(reverse=True))]
        if self.question.pattern is None:
            return [Segment(line.text, style)]
        mark = "current" if number == self.current else "match"
        marked = style + self.get_component_rich_style(f"log-lines--{mark}", partial=True)
        segments, done = [], 0
        for found, _ in zip(self.question.pattern.finditer(line.text), range(MAX_HIGHLIGHTS), strict=False):
            segments += [
                Segment(line.text[done : found.start()], style),
                Segment(line.text[found.start() : found.end()], marked),
            ]
            done = found.end()
        return [*segments, Segment(line.text[done:], style)]

    def _source(self, line: LogLine, base: Style) -> list[Segment]:
        if not self._source_cells:
            return []
        style = base + self.get_component_rich_style("log-lines--source", partial=True)
        return [Segment(f"{line.source:<{self._source_cells - 1}} ", style)]

    def _lay_out(self, top: int | None) -> None:
        """Where each line begins, and how large all of them are; `top` is the line to keep on top."""
        shown = [self.line(number) for number in self.sieve.numbers]
        self._source_cells = max((len(line.source) + 1 for line in shown if line.source), default=0)
        self._cells = np.fromiter((line.cells for line in shown), np.int64, len(shown))
        rows = np.ones(len(shown), np.int64)
        if self.wrapping:
            rows = np.maximum(1, -(-self._cells // self._room()))
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        widest = int(self._cells.max(initial=0)) + self._source_cells
        self.virtual_size = Size(self.size.width if self.wrapping else widest, int(self._starts[-1]))
        if self.following:
            # Once the layout knows the new size, or the end would be that of the old one.
            self.call_after_refresh(self._go_to_end)
        elif top is not None:
            self._scroll_to_row(self._row_of(top))
        self.refresh()

    def _go_to_end(self) -> None:
        if self.following:
            self.scroll_end(animate=False, immediate=True)

    def _go_to(self, number: int | None) -> bool:
        if number is None:
            return False
        self.current = number
        row, height = self._row_of(number), self.size.height
        if not self.scroll_offset.y <= row < self.scroll_offset.y + height:
            self._scroll_to_row(row - height // 3)
        self.following = False
        self.post_message(self.Moved())
        self.refresh()
        return True

    def _scroll_to_row(self, row: int) -> None:
        self.scroll_to(y=max(0, row), animate=False, immediate=True)

    def _row_of(self, number: int) -> int:
        """Row of a line, or of the next one that is shown."""
        return int(self._starts[bisect_left(self.sieve.numbers, number)])

    def _top_number(self) -> int | None:
        index = int(np.searchsorted(self._starts, self.scroll_offset.y, side="right")) - 1
        return self.sieve.numbers[index] if 0 <= index < len(self.sieve.numbers) else None

    def _from(self, backwards: bool) -> int:
        """Where a search goes on: at the line jumped to, else at what is in sight."""
        if self.current is not None:
            return self.current
        top = self._top_number()
        if top is None:
            return 0
        return top if not backwards else top + 1

    def _room(self) -> int:
        """Columns for the text of a line."""
        return max(1, self.size.width - self._source_cells)
