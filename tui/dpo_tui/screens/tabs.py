"""The line that says which screens there are, and which one is in front."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from dpo_tui.wants import SCREENS, ScreenName


class Tab(Static):
    """One screen's key and name; a click goes there."""

    def __init__(self, name: ScreenName, key: int, *, front: bool) -> None:
        style = "bold underline $foreground" if front else "$muted"
        super().__init__(Content.assemble((f"{key} ", "$primary"), (name, style)), id=f"tab-{name}")
        self.screen_name = name

    async def on_click(self) -> None:
        """Go to the screen."""
        await self.app.run_action(f"app.show('{self.screen_name}')")


class TabBar(Horizontal):
    """All screens in the order of their keys."""

    DEFAULT_CSS = """
    TabBar { height: 1; padding: 0 1; }
    TabBar > Tab { width: auto; padding: 0 1 0 0; }
    """

    def __init__(self, front: ScreenName) -> None:
        super().__init__(id="tabs")
        self._front = front

    def compose(self) -> ComposeResult:
        """A tab each."""
        for key, name in enumerate(SCREENS, start=1):
            yield Tab(name, key, front=name == self._front)
