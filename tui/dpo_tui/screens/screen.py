"""What every screen that shows a run has."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Footer

from dpo_tui.copies import Copy, of_run
from dpo_tui.panels.header import header
from dpo_tui.panels.panel import Panel
from dpo_tui.screens.tabs import TabBar
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.wants import ScreenName

SMALLEST = (20, 6)
"""Columns and rows below which a screen is one line."""
SMALLEST_WITH_TABS = (60, 18)


class RunScreen(Screen[None]):
    """State and tabs above, keys below, and between them what a screen adds.

    Shows snapshots from the moment its widgets are there.
    """

    NAME: ClassVar[ScreenName]
    HELP: ClassVar[str] = ""
    """What `?` says of this screen: a line a key or sign, as "key: what"."""

    DEFAULT_CSS = """
    RunScreen {
        overflow: hidden;
        #header { height: 1; padding: 0 1; background: $surface; }
    }
    RunScreen.-without-tabs > #tabs { display: none; }
    RunScreen.-one-line > * { display: none !important; }
    RunScreen.-one-line > #header { display: block !important; padding: 0; }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__()
        self.signs = signs
        self.ready = False
        self.snapshot: Snapshot | None = None
        """What is shown."""

    def compose(self) -> ComposeResult:
        """The frame of all screens."""
        yield Panel(header, signs=self.signs, id="header")
        yield TabBar(self.NAME)
        yield from self.compose_body()
        yield Footer()

    def compose_body(self) -> ComposeResult:
        """What is between the tabs and the keys."""
        yield from ()

    def on_mount(self) -> None:
        """Everything that was composed is mounted now."""
        self.ready = True

    def on_resize(self, event: events.Resize) -> None:
        """What does not fit gives way: the tabs first, then everything but the state of the run."""
        width, height = event.size
        self.set_class(width < SMALLEST_WITH_TABS[0] or height < SMALLEST_WITH_TABS[1], "-without-tabs")
        self.set_class(width < SMALLEST[0] or height < SMALLEST[1], "-one-line")

    def show(self, snapshot: Snapshot) -> None:
        """Hand a snapshot to every panel."""
        self.snapshot = snapshot
        for panel in self.query(Panel):
            panel.show(snapshot)

    def copies(self) -> list[Copy]:
        """Values and commands that `y` offers; a screen adds its own in front."""
        return of_run(self.snapshot) if self.snapshot is not None else []
