"""The keys, and how to read the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.wants import SCREENS

EVERYWHERE = (
    (f"1-{len(SCREENS)}", f"{', '.join(SCREENS)}"),
    ("escape", "back to the overview"),
    ("ctrl+p", "every command by its name: screens, themes, metrics, what to copy"),
    ("y", "copy a value or a command"),
    ("S C E", "a live run: stop with checkpoint, save now, evaluate now; each asks first"),
    ("?", "this help; again or escape closes it"),
    ("q", "quit; the run goes on"),
    ("mouse", "tabs, keys below, charts and panels can be clicked"),
)
Rows = list[tuple[str, str]]
PAGE_WIDTH = 82


class HelpScreen(ModalScreen[None]):
    """A page over the screen that was left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark", "dismiss", "Close"),
        Binding("q", "app.quit", "Quit"),
    ]

    DEFAULT_CSS = f"""
    HelpScreen {{ align: center middle; }}
    HelpScreen > VerticalScroll {{
        width: {PAGE_WIDTH}; max-width: 100%; height: auto; max-height: 100%;
        padding: 1 2; background: $surface; scrollbar-size: 1 1;
    }}
    """

    def __init__(self, signs: Signs, below: RunScreen) -> None:
        super().__init__()
        self.signs = signs
        self._title = below.NAME.capitalize()
        self._own = list(own_keys(below)) + _help_rows(below.HELP)

    def compose(self) -> ComposeResult:
        """One page."""
        with VerticalScroll():
            yield Static(self._page())

    def _page(self) -> Content:
        glyphs, signs = self.signs.charts, self.signs
        reading: Rows = [
            (glyphs.not_a_number, "a value that is NaN, at its step"),
            (f"{glyphs.above} {glyphs.below}", "plus and minus infinity"),
            (glyphs.marker, "an evaluation; each column keeps its lowest and highest value"),
            (f"{signs.critical} {signs.warning} {signs.info}", "critical, warning, worth knowing"),
            (signs.mark, "the plan for the memory that was measured"),
            ("keeper lost", "the run directory is read while it can be; figures say how old they are"),
        ]
        sections = [(self._title, self._own), ("Everywhere", list(EVERYWHERE)), ("Signs", reading)]
        width = max(len(key) for _, rows in sections for key, _ in rows)
        room = min(PAGE_WIDTH, self.app.size.width) - 5
        parts: list[str | tuple[str, str]] = []
        for title, rows in sections:
            if rows:
                parts.append((f"{title}\n", "bold"))
                for key, text in rows:
                    first, *more = textwrap.wrap(text, max(20, room - width - 2)) or [""]
                    parts += [(f"{key:<{width}}", "$primary"), f"  {first}\n"]
                    parts += [f"{'':<{width}}  {line}\n" for line in more]
                parts.append("\n")
        return Content.assemble(*parts[:-1])


def own_keys(screen: RunScreen) -> Iterator[tuple[str, str]]:
    """Keys of the screen and of its widgets that say what they do; those of one action together."""
    keys: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    everywhere = {"escape", "question_mark", "q", "y", "S", "C", "E"}
    for key, active in screen.active_bindings.items():
        binding = active.binding
        if active.node is screen.app or binding.system or not binding.description or key in everywhere:
            continue
        if binding.action.startswith(("app.focus", "screen.copy", "scroll_", "page_")):
            continue
        keys.setdefault(binding.action, []).append(screen.app.get_key_display(binding))
        said[binding.action] = binding.tooltip or binding.description
    for action, shown in keys.items():
        yield " ".join(dict.fromkeys(shown)), said[action]


def _help_rows(text: str) -> Rows:
    """Lines "key: what"."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return [(key.strip(), what.strip()) for key, _, what in (line.partition(": ") for line in lines)]
