"""The question before anything is asked of a run."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from dpo_telemetry.figures import duration
from dpo_telemetry.text import printable
from dpo_tui.control import EXPIRES_IN_S, Wish
from dpo_tui.snapshot import Snapshot

QUESTIONS: dict[Wish, str] = {
    "stop": "Stop this run, with a checkpoint?",
    "save": "Save a checkpoint now?",
    "evaluate": "Evaluate on the held-out pairs now?",
}
BEFORE_TRAINING = ("waiting", "loading", "reference")


def consequences(wish: Wish, snapshot: Snapshot) -> list[str]:
    """What will happen, a sentence a line."""
    name, loads = printable(snapshot.name), snapshot.status.state in BEFORE_TRAINING
    match wish:
        case "stop" if loads:
            lines = ["Nothing has been trained yet: the run ends without a checkpoint."]
        case "stop":
            lines = [
                "All ranks finish their step, a checkpoint is saved, and the run ends.",
                f"The checkpoint is under checkpoints/ of {name}.",
            ]
        case "save":
            lines = ["A checkpoint is saved at the end of a step; training waits for it, then goes on."]
        case "evaluate":
            lines = ["It begins at the end of a step; training waits for it, then goes on."]
    if loads and wish != "stop":
        lines.append("The run still loads: this is done after its first step.")
    if snapshot.status.state in ("silent", "hung"):
        lines.append(
            f"The run is {snapshot.status.state}: perhaps nobody answers. "
            f"The request expires in {duration(EXPIRES_IN_S)}."
        )
    return lines


class ControlScreen(ModalScreen[bool]):
    """Says what will happen and waits for yes or no; anything but yes is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
        Binding("left,right,up,down", "app.focus_next", show=False),
    ]

    VERTICAL_BREAKPOINTS = [(0, "-short"), (18, "-tall")]  # noqa: RUF012 - Textual reads it from the class

    DEFAULT_CSS = """
    ControlScreen { align: center middle; }
    ControlScreen > VerticalScroll {
        width: 72; max-width: 100%; height: auto; max-height: 100%;
        padding: 1 2; background: $surface; scrollbar-size: 1 1; scrollbar-gutter: stable;
    }
    ControlScreen.-short > VerticalScroll { padding: 0 1; }
    ControlScreen Static { height: auto; margin: 0 0 1 0; }
    ControlScreen.-short Static { margin: 0; }
    ControlScreen Horizontal { height: 1; align-horizontal: right; }
    ControlScreen Button { margin: 0 0 0 2; }
    """

    def __init__(self, wish: Wish, snapshot: Snapshot) -> None:
        super().__init__()
        self.wish = wish
        self._snapshot = snapshot

    def compose(self) -> ComposeResult:
        """The question, what a yes brings, and the two answers."""
        lines = consequences(self.wish, self._snapshot)
        with VerticalScroll(can_focus=False):
            yield Static(
                Content.assemble(
                    (QUESTIONS[self.wish], "bold"),
                    (f"\n{printable(self._snapshot.name)}, step {self._snapshot.step}", "$muted"),
                )
            )
            yield Static(Content("\n".join(lines)), id="consequences")
            with Horizontal():
                yield Button(Content("y  yes"), id="yes", variant="warning", compact=True)
                yield Button(Content("n  no"), id="no", compact=True)

    def on_mount(self) -> None:
        """Enter means no."""
        self.query_one("#no", Button).focus()

    @on(Button.Pressed)
    def press(self, event: Button.Pressed) -> None:
        """A click or enter on an answer."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """A key."""
        self.dismiss(yes)
