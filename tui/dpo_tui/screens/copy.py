"""What can be copied from the screen in front, to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from dpo_tui.copies import Copy


class CopyScreen(ModalScreen[Copy | None]):
    """A list over the screen that was left; gives what was chosen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,y", "dismiss(None)", "Close"),
        Binding("q", "app.quit", "Quit"),
    ]

    DEFAULT_CSS = """
    CopyScreen { align: center middle; }
    CopyScreen > OptionList {
        width: 78; max-width: 100%; height: auto; max-height: 100%; padding: 1; background: $surface;
        text-wrap: nowrap; text-overflow: ellipsis; scrollbar-size: 1 1;
        &, &:focus { border: none; }
    }
    """

    def __init__(self, copies: Sequence[Copy]) -> None:
        super().__init__()
        self._copies = copies

    def compose(self) -> ComposeResult:
        """A line each: what it is, and the text."""
        width = max((len(copy.label) for copy in self._copies), default=0)
        yield OptionList(
            *(
                Option(Content.assemble((f"{copy.label:<{width}}", "$muted"), "  ", copy.text))
                for copy in self._copies
            )
        )

    @on(OptionList.OptionSelected)
    def choose(self, event: OptionList.OptionSelected) -> None:
        """Enter or a click takes the line."""
        self.dismiss(self._copies[event.option_index])
