"""What every screen that shows a run has."""

from __future__ import annotations

from textual.screen import Screen

from dpo_tui.panels.panel import Panel
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot


class RunScreen(Screen[None]):
    """Shows snapshots from the moment its widgets are there."""

    def __init__(self, signs: Signs) -> None:
        super().__init__()
        self.signs = signs
        self.ready = False

    def on_mount(self) -> None:
        """Everything that was composed is mounted now."""
        self.ready = True

    def show(self, snapshot: Snapshot) -> None:
        """Hand a snapshot to every panel."""
        for panel in self.query(Panel):
            panel.show(snapshot)
