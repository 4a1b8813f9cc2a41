"""Choose the rank or file whose log is shown."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from dpo_telemetry.figures import size
from dpo_telemetry.text import printable
from dpo_tui.views.logs import LogFile


class LogPicker(ModalScreen[LogFile | None]):
    """All logs of the run, the newest attempt first; typing narrows them. Gives what was chosen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close"),
        Binding("down", "move(1)", "Down", show=False),
        Binding("up", "move(-1)", "Up", show=False),
    ]
    DEFAULT_CSS = """
    LogPicker { align: center middle; }
    LogPicker > Vertical { width: 60; max-width: 100%; height: auto; max-height: 100%; background: $surface; }
    LogPicker Input { height: 1; border: none; padding: 0 1; }
    LogPicker OptionList {
        height: auto; max-height: 20; scrollbar-size: 1 1; padding: 0 1; text-wrap: nowrap;
        &, &:focus { border: none; }
    }
    """

    def __init__(self, files: tuple[LogFile, ...], shown: tuple[LogFile, ...]) -> None:
        super().__init__()
        self._files = sorted(files, key=lambda file: -file.attempt)
        self._several = len({file.attempt for file in files}) > 1
        self._shown = {file.path for file in shown}
        self._offered = self._files

    def compose(self) -> ComposeResult:
        """What narrows the list, and the list."""
        with Vertical():
            yield Input(placeholder="rank or name", id="log-narrow")
            yield OptionList(id="log-files")

    def on_mount(self) -> None:
        """Begin at the log that is shown."""
        self._offer("")
        places = [at for at, file in enumerate(self._files) if file.path in self._shown]
        self.query_one(OptionList).highlighted = places[0] if places else 0

    @on(Input.Changed)
    def narrow(self, event: Input.Changed) -> None:
        """A number is a rank; anything else is part of a name."""
        self._offer(event.value.strip().lower())

    @on(Input.Submitted)
    def take(self) -> None:
        """Enter takes the line that is marked."""
        at = self.query_one(OptionList).highlighted
        if at is not None and at < len(self._offered):
            self.dismiss(self._offered[at])

    @on(OptionList.OptionSelected)
    def take_clicked(self, event: OptionList.OptionSelected) -> None:
        """A click takes the line."""
        self.dismiss(self._offered[event.option_index])

    def action_move(self, lines: int) -> None:
        """Move the mark while the keys go to the input."""
        files = self.query_one(OptionList)
        if files.option_count:
            files.highlighted = ((files.highlighted or 0) + lines) % files.option_count

    def _offer(self, wanted: str) -> None:
        if wanted.isdecimal():
            self._offered = [file for file in self._files if file.label.startswith(f"rank {int(wanted)}")]
        else:
            self._offered = [file for file in self._files if wanted in file.label.lower()]
        files = self.query_one(OptionList)
        files.clear_options()
        files.add_options(Option(self._line(file)) for file in self._offered)
        files.highlighted = 0 if self._offered else None

    def _line(self, file: LogFile) -> Content:
        attempt = f"attempt {file.attempt}  " if self._several else ""
        return Content.assemble(
            (attempt, "$muted"), f"{printable(file.label):<24}", (size(file.size_bytes), "$muted")
        )
