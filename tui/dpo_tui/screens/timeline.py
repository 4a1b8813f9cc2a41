"""Attempts, checkpoints, evaluations, stops and restarts."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from dpo_telemetry.figures import clock_text
from dpo_tui.copies import Copy
from dpo_tui.panels.panel import Panel
from dpo_tui.panels.timeline import clock, timeline
from dpo_tui.screens.row_list import RowList
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.timeline import Entry, Mood
from dpo_tui.wants import ScreenName

STYLES: dict[Mood, str] = {
    "": "$foreground", "good": "$success", "warning": "$warning", "bad": "$error", "quiet": "$muted",
}  # fmt: skip
NARROW = 60
WITH_DATES = 100


class TimelineScreen(RunScreen):
    """A picture of the attempts above, and what happened below, the newest last."""

    NAME: ClassVar[ScreenName] = "timeline"
    HELP: ClassVar[str] = """\
enter, click: an entry with a step opens the charts there
bars: the phases of rank 0 by the time they took; a cross is where a process ended within one
no data: a process wrote nothing, and then went on"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow", tooltip="stay at the newest entry, or stand still"),
        Binding("z", "zoom", "Zoom", tooltip="bars of the newest attempt only, or of all"),
    ]
    DEFAULT_CSS = """
    TimelineScreen {
        #picture { height: auto; max-height: 40%; padding: 0 1; margin: 0 0 1 0; }
        #entries-none { height: auto; padding: 0 1; color: $muted; display: none; }
        &.-without-tabs #picture { margin: 0; }
        &.-empty #entries-none { display: block; }
    }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__(signs)
        self.following = True
        self.newest_only = False
        self.entries: tuple[Entry, ...] = ()
        self._width = 0

    def compose_body(self) -> ComposeResult:
        """Bars, then the list."""
        yield Panel(self._picture, signs=self.signs, id="picture")
        yield Static("Nothing has happened yet.", id="entries-none")
        yield RowList(id="entries")

    def on_mount(self) -> None:
        """Keys go to the list."""
        super().on_mount()
        self.query_one(RowList).focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; the list is made again only when something happened."""
        super().show(snapshot)
        if snapshot.record is None:
            return
        found, width = snapshot.record.timeline.entries, self.size.width
        self.set_class(not found, "-empty")
        if found != self.entries or width != self._width:
            self.entries, self._width = found, width
            self._fill()

    def copies(self) -> list[Copy]:
        """The entry that is marked."""
        at = self.query_one(RowList).highlighted
        entry = self.entries[at] if at is not None and at < len(self.entries) else None
        own = [Copy("entry", f"{entry.what}: {entry.text}")] if entry is not None else []
        return own + super().copies()

    def action_follow(self) -> None:
        """Stay at the newest entry, or stand still."""
        self.following = not self.following
        if self.following:
            self._go_to_newest()
        self.notify("following" if self.following else "standing still", markup=False)

    def action_zoom(self) -> None:
        """Bars of the newest attempt only, or of all."""
        self.newest_only = not self.newest_only
        if self.snapshot is not None:
            self.query_one("#picture", Panel).show(self.snapshot)

    @on(OptionList.OptionHighlighted, "#entries")
    def stand_still(self, event: OptionList.OptionHighlighted) -> None:
        """Going up stops the following, the newest entry starts it again."""
        self.following = event.option_index == len(self.entries) - 1

    @on(OptionList.OptionSelected, "#entries")
    async def open_charts(self, event: OptionList.OptionSelected) -> None:
        """Show the step of an entry in the charts."""
        entry = self.entries[event.option_index]
        if entry.step is None:
            self.notify("this has no step to show in the charts", markup=False)
            return
        metric = "eval_loss" if entry.what == "evaluation" else "loss"
        await self.run_action(f"app.jump({metric!r}, {entry.step})")

    def _picture(self, snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
        return timeline(snapshot, width, height, signs, newest_only=self.newest_only)

    def _fill(self) -> None:
        entries, kept = self.query_one(RowList), self.query_one(RowList).highlighted
        several = len({entry.attempt for entry in self.entries}) > 1
        with self.prevent(OptionList.OptionHighlighted):
            entries.clear_options()
            entries.add_options(Option(self._line(entry, several=several)) for entry in self.entries)
            if self.following:
                self._go_to_newest()
            elif kept is not None and self.entries:
                entries.highlighted = min(kept, len(self.entries) - 1)

    def _go_to_newest(self) -> None:
        entries = self.query_one(RowList)
        entries.highlighted = len(self.entries) - 1 if self.entries else None

    def _line(self, entry: Entry, *, several: bool) -> Content:
        width, style = self._width, STYLES[entry.mood]
        date = clock_text(entry.wall_s, "%m-%d ") if width >= WITH_DATES and entry.wall_s else ""
        attempt = f"{entry.attempt:>3}  " if several and width >= NARROW else ""
        step = f"step {entry.step}" if entry.step is not None else ""
        signs: dict[Mood, str] = {
            "good": self.signs.good, "warning": self.signs.warning, "bad": self.signs.critical,
        }  # fmt: skip
        return Content.assemble(
            (f"{date}{clock(entry.wall_s):<8}  {attempt}", "$muted"),
            (f"{signs.get(entry.mood, ' ')} {entry.what:<14}", style),
            (f"{step:<{12 if width >= NARROW else len(step)}} ", "$primary"),
            (entry.text, "$muted" if entry.mood == "quiet" else "$foreground"),
        )
