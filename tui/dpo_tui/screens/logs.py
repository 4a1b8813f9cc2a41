"""The log, full screen: scroll, or follow the newest line."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Footer

from dpo_tui.panels.header import header
from dpo_tui.panels.panel import Panel
from dpo_tui.screens.screen import RunScreen
from dpo_tui.snapshot import Snapshot


class LogLines(ScrollView, can_focus=True):
    """Lines of text, of which only the visible ones are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: tuple[str, ...] = ()
        self.following = True

    def show(self, lines: tuple[str, ...]) -> None:
        """Show these lines; stays at the end while following, else where it is."""
        if lines is self.lines:
            return
        self.lines = lines
        self.virtual_size = Size(max(map(len, lines), default=0), len(lines))
        if self.following:
            self._go_to_end()
        self.refresh()

    def on_resize(self) -> None:
        """The end lies elsewhere now."""
        if self.following:
            self._go_to_end()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Going up stops the following, reaching the end starts it again."""
        super().watch_scroll_y(old_value, new_value)
        if new_value >= self.max_scroll_y:
            self.following = True
        elif new_value < old_value:
            self.following = False

    def _go_to_end(self) -> None:
        """Once the layout knows the new size, or the end would be that of the old one."""
        self.call_after_refresh(self.scroll_end, animate=False, immediate=True)

    def render_line(self, y: int) -> Strip:
        """One visible line."""
        left, top = self.scroll_offset
        style = self.rich_style
        index = top + y
        text = self.lines[index] if index < len(self.lines) else ""
        return Strip([Segment(text, style)]).crop_extend(left, left + self.size.width, style)


class LogScreen(RunScreen):
    """The whole log that was kept."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,l", "app.pop_screen", "Back"),
        Binding("f", "follow", "Follow"),
    ]

    DEFAULT_CSS = """
    LogScreen {
        #log-header { height: 1; padding: 0 1; background: $surface; }
        LogLines { height: 1fr; padding: 0 1; scrollbar-size: 1 1; }
    }
    """

    def compose(self) -> ComposeResult:
        """The state stays in sight."""
        yield Panel(header, signs=self.signs, id="log-header")
        yield LogLines()
        yield Footer(show_command_palette=False)

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        super().show(snapshot)
        self.query_one(LogLines).show(snapshot.log)

    def action_follow(self) -> None:
        """Go to the newest line and stay there, or stand still."""
        lines = self.query_one(LogLines)
        lines.following = not lines.following
        if lines.following:
            lines.scroll_end(animate=False, immediate=True)
