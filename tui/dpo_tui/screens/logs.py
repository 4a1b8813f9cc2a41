"""Raw logs of every rank: follow, search, filter, jump to a traceback."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from dpo_tui.copies import Copy
from dpo_tui.logs.levels import Level
from dpo_tui.logs.lines import LogLines
from dpo_tui.logs.picker import LogPicker
from dpo_tui.logs.reader import at_file
from dpo_tui.logs.sieve import Question, pattern_of
from dpo_tui.panels.log_state import LogState, log_state
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.logs import LogChoice, LogFile, LogsView
from dpo_tui.wants import ScreenName

LEVELS = (Level.NONE, Level.WARNING, Level.ERROR, Level.INFO)
"""What `l` goes through: everything, then the least grave level that is shown."""


class LogsScreen(RunScreen):
    """The log of a rank, or of all ranks together, as far as it is kept."""

    class Chosen(Message):
        """Another log is to be read."""

        def __init__(self, choice: LogChoice) -> None:
            super().__init__()
            self.choice = choice

    NAME: ClassVar[ScreenName] = "logs"
    HELP: ClassVar[str] = """\
arrows, page, home, end: move; reaching the end follows again
red, yellow: errors with their tracebacks, warnings
passed over: of a long log its end is read; the line above says how much there is before"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/", tooltip="search a text or regular expression"),
        Binding("n", "match", "Next", show=False, tooltip="next match"),
        Binding("N", "match(True)", "Previous", show=False, tooltip="previous match"),
        Binding("m", "only_matching", "Matches", show=False, tooltip="only lines that match, or all"),
        Binding("l", "level", "Level", tooltip="all lines, warnings, errors, infos"),
        Binding("e", "traceback", "Traceback", tooltip="first traceback, then the next"),
        Binding("f", "follow", "Follow", tooltip="follow the newest line, or stand still"),
        Binding("w", "wrap", "Wrap", tooltip="break long lines, or let them run on"),
        Binding("right_square_bracket", "other(1)", "Next rank", show=False, key_display="]"),
        Binding("left_square_bracket", "other(-1)", "Previous rank", show=False, key_display="["),
        Binding("r", "pick", "Rank", tooltip="choose a rank or a file"),
        Binding("0", "all_ranks", "All", tooltip="all ranks together, or one"),
        Binding("escape", "leave", "Back", show=False),
    ]
    DEFAULT_CSS = """
    LogsScreen {
        #log-state { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        #log-none { height: auto; padding: 0 1; color: $muted; display: none; }
        #log-search { height: 1; border: none; padding: 0 1; display: none; }
        #log-search.-open { display: block; }
        LogLines { height: 1fr; padding: 0 1; }
        &.-empty #log-none { display: block; }
        &.-empty LogLines { visibility: hidden; }
    }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__(signs)
        self.question = Question()
        self.choice = LogChoice()
        self._view = LogsView()
        self._pattern = ""

    def compose_body(self) -> ComposeResult:
        """What is shown, the lines, and what is searched."""
        yield Static(id="log-state")
        yield Static(id="log-none")
        yield LogLines(id="log-lines")
        yield Input(placeholder="text or regular expression", id="log-search")

    def on_mount(self) -> None:
        """Keys go to the lines."""
        super().on_mount()
        self.query_one(LogLines).focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        super().show(snapshot)
        if snapshot.logs is None or snapshot.logs is self._view:
            return
        self._view = snapshot.logs
        self.set_class(not self._view.lines, "-empty")
        self.query_one("#log-none", Static).update(Content(why_empty(snapshot)))
        self._draw()

    def copies(self) -> list[Copy]:
        """The line that was jumped to, else the newest one."""
        lines = self.query_one(LogLines)
        numbers = [lines.current] if lines.current is not None else lines.sieve.numbers[-1:]
        own = [Copy("line of the log", lines.line(number).text) for number in numbers]
        return own + super().copies()

    def action_search(self) -> None:
        """Ask for what to search."""
        search = self.query_one("#log-search", Input)
        search.add_class("-open")
        search.value = self._pattern
        search.focus()

    @on(Input.Changed, "#log-search")
    def search(self, event: Input.Changed) -> None:
        """Matches are marked while one types."""
        self._pattern = event.value
        self._ask(replace(self.question, pattern=pattern_of(event.value)))

    @on(Input.Submitted, "#log-search")
    def go_to_newest(self) -> None:
        """Enter jumps to the match above the end, which is the newest."""
        self._close_search()
        if self.question.pattern is not None:
            self.action_match(True)

    def action_leave(self) -> None:
        """Close the search, then forget it, then go back to the overview."""
        if self.query_one("#log-search").has_class("-open"):
            self._close_search()
        elif self.question.pattern is not None:
            self._pattern = ""
            self._ask(replace(self.question, pattern=None, only_matching=False))
        else:
            self.app.call_later(self.app.run_action, "app.show('overview')")

    def action_match(self, backwards: bool = False) -> None:
        """Bring another match into sight."""
        if self.question.pattern is None:
            self.action_search()
        elif not self.query_one(LogLines).go_to_match(backwards=backwards):
            self.notify("no line matches", markup=False)

    def action_only_matching(self) -> None:
        """Hide what does not match, or show it again."""
        if self.question.pattern is None:
            self.action_search()
        self._ask(replace(self.question, only_matching=not self.question.only_matching))

    def action_level(self) -> None:
        """Show the next choice of levels."""
        at = LEVELS.index(self.question.min_level)
        self._ask(replace(self.question, min_level=LEVELS[(at + 1) % len(LEVELS)]))

    def action_traceback(self) -> None:
        """Bring the first traceback into sight."""
        if self.query_one(LogLines).go_to_traceback():
            return
        others = "" if self.choice.all_ranks or len(self._view.files) < 2 else "; 0 shows all ranks"
        before = " in what is kept" if self._view.left_out_bytes else ""
        self.notify(f"no traceback{before}{others}", markup=False)

    def action_follow(self) -> None:
        """Go to the newest line and stay there, or stand still."""
        lines = self.query_one(LogLines)
        lines.follow(not lines.following)

    def action_wrap(self) -> None:
        """Break long lines, or let them run on."""
        lines = self.query_one(LogLines)
        lines.wrap(not lines.wrapping)
        self._tell()

    def action_other(self, by: int) -> None:
        """The next file of the same attempt, or the one before."""
        shown = self._view.shown
        if not shown:
            return
        own = [file for file in self._view.files if file.attempt == shown[0].attempt]
        if self.choice.all_ranks:
            self._read(own[0 if by > 0 else -1])
        else:
            self._read(own[(own.index(shown[0]) + by) % len(own)])

    def action_pick(self) -> None:
        """Choose a rank or a file."""
        if self._view.files:
            self.app.push_screen(LogPicker(self._view.files, self._view.shown), self._read)

    def action_all_ranks(self) -> None:
        """All ranks together, or the one before."""
        self._choose(replace(self.choice, all_ranks=not self.choice.all_ranks))

    @on(LogLines.Moved)
    def _tell(self) -> None:
        lines = self.query_one(LogLines)
        sieve = lines.sieve
        state = LogState(
            view=self._view,
            question=self.question,
            searched=self._pattern,
            shown=len(sieve.numbers),
            matches=len(sieve.matches),
            current=sieve.matches.index(lines.current) + 1 if lines.current in sieve.matches else None,
            following=lines.following,
            wrapping=lines.wrapping,
        )
        self.query_one("#log-state", Static).update(log_state(state, self.size.width - 2))

    def _read(self, file: LogFile | None) -> None:
        if file is not None:
            newest = max(other.attempt for other in self._view.files)
            self._choose(at_file(file, newest))

    def _choose(self, choice: LogChoice) -> None:
        self.choice = choice
        self.post_message(self.Chosen(choice))

    def _ask(self, question: Question) -> None:
        self.question = question
        self._draw()

    def _draw(self) -> None:
        self.query_one(LogLines).show(self._view, self.question)
        self._tell()

    def _close_search(self) -> None:
        self.query_one("#log-search").remove_class("-open")
        self.query_one(LogLines).focus()


def why_empty(snapshot: Snapshot) -> str:
    """What to say where there are no lines."""
    logs = snapshot.logs
    if logs is not None and logs.shown:
        return "nothing written yet" if not snapshot.status.ended else "nothing was written"
    if snapshot.attempt == 0 and snapshot.step:
        return (
            "This is the log of another program: its numbers are in the charts, and it has no raw logs here."
        )
    if snapshot.link in ("stale", "lost"):
        return "No raw logs can be read while the keeper is silent."
    return "No raw logs yet: they appear when the first process of the run starts."
