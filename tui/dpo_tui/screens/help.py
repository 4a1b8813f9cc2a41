"""The keys, and how to read the screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from dpo_tui.signs import Signs

KEYS = (
    ("q", "quit; the run goes on"),
    ("?", "this help; again or escape closes it"),
    ("l", "log of rank 0, full screen; escape goes back"),
    ("f", "in the log: follow the newest line, or stay"),
    ("arrows, page, end", "in the log: move"),
)


class HelpScreen(ModalScreen[None]):
    """A page over the screen that was left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark", "dismiss", "Close"),
        Binding("q", "app.quit", "Quit"),
    ]

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll {
        width: 78; max-width: 100%; height: auto; max-height: 100%;
        padding: 1 2; background: $surface;
    }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__()
        self.signs = signs

    def compose(self) -> ComposeResult:
        """One page."""
        with VerticalScroll():
            yield Static(self._page())

    def _page(self) -> Content:
        width = max(len(key) for key, _ in KEYS)
        parts: list[str | tuple[str, str]] = [("Keys\n", "bold")]
        for key, text in KEYS:
            parts += [(f"{key:<{width}}", "$primary"), f"  {text}\n"]
        glyphs = self.signs.charts
        parts += [
            ("\nCharts\n", "bold"),
            (glyphs.not_a_number, "$error"),
            "  a value that is NaN, at its step;  ",
            (f"{glyphs.above} {glyphs.below}", "$error"),
            "  plus and minus infinity\n",
            (glyphs.marker, "$accent"),
            "  an evaluation;  lowest and highest value of each column are kept\n",
            ("\nMemory\n", "bold"),
            (self.signs.mark, "bold"),
            "  the plan for the components that were measured\n",
            ("\nLink\n", "bold"),
            "keeper lost: data comes from the run directory while that can be read",
        ]
        return Content.assemble(*parts)
