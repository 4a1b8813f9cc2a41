"""All runs, to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker, get_current_worker

from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.text import printable
from dpo_tui.panels.panel import spread
from dpo_tui.panels.runs import Column, about, columns_for, run_line, titles
from dpo_tui.receiver import Clock
from dpo_tui.runlist import Rows, RunList
from dpo_tui.screens.screen import RunScreen
from dpo_tui.screens.tabs import TabBar
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.runs import RunRow, matches
from dpo_tui.wants import ScreenName

LOOK_EVERY_S = 3.0


class RunOptions(OptionList):
    """A line a run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Open", tooltip="open the run in this window; a click does the same")
    ]


class RunsScreen(RunScreen):
    """Live runs first, then the newest; looked at again every few seconds while it is in front."""

    NAME: ClassVar[ScreenName] = "runs"
    HELP: ClassVar[str] = (
        "escape: show all runs; then back to the run that is open\n"
        "loss so far: of the newest attempt, from its first step to its last; a cross is NaN or infinity"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "filter",
            "Filter",
            key_display="/",
            tooltip="show only runs whose name, state, host or path has these words",
        ),
        Binding("escape", "back", "Back", show=False),
    ]

    DEFAULT_CSS = """
    RunsScreen {
        #header, #titles, #about { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        #titles { margin: 1 0 0 0; }
        &.-without-tabs #titles { margin: 0; }
        RunOptions {
            height: 1fr; border: none; background: $background; padding: 0 1;
            scrollbar-size: 1 1; scrollbar-gutter: stable;
        }
        RunOptions:focus { border: none; background-tint: $foreground 0%; }
        RunOptions > .option-list--option-highlighted, RunOptions:focus > .option-list--option-highlighted {
            color: $foreground; background: $primary 25%; text-style: none;
        }
        #filter { display: none; border: none; height: 1; padding: 0 1; background: $panel; }
        &.-filtering #filter { display: block; }
    }
    """

    class Chosen(Message):
        """A run is to be opened."""

        def __init__(self, run: RunDirectory) -> None:
            super().__init__()
            self.run = run

    class Looked(Message):
        """The list as it is now; `complete` is false while more of it comes."""

        def __init__(self, rows: Rows, *, complete: bool) -> None:
            super().__init__()
            self.rows = rows
            self.complete = complete

    def __init__(self, signs: Signs, runs: RunList, clock: Clock) -> None:
        super().__init__(signs)
        self._runs = runs
        self._clock = clock
        self._here = Path.cwd()
        self._worker: Worker[None] | None = None
        self._columns: tuple[Column, ...] = ()
        self.rows: Rows = ()
        """All runs that are known, in their order."""
        self.shown: Rows = ()
        """Those that the filter leaves."""
        self.complete = False
        """Whether all runs were looked at once."""

    def compose(self) -> ComposeResult:
        """What is known of all runs stands where other screens have the state of one."""
        yield Static(id="header")
        yield TabBar(self.NAME)
        yield from self.compose_body()
        yield Footer()

    def compose_body(self) -> ComposeResult:
        """The list, and what there is to say of the line that is highlighted."""
        yield Static(id="titles")
        yield RunOptions(markup=False)
        yield Static(id="about")
        yield Input(placeholder="words of a name, a state, a host", id="filter")

    def on_mount(self) -> None:
        """Look at once, and again while this screen is in front."""
        super().on_mount()
        self.query_one(RunOptions).focus()
        self.set_interval(LOOK_EVERY_S, self.look)

    def on_screen_resume(self) -> None:
        """Whoever comes back sees how it stands now."""
        self.look()

    def look(self) -> None:
        """Begin to look, unless the last look still goes on or nobody sees it."""
        if self.is_current and (self._worker is None or self._worker.is_finished):
            self._worker = self._read_runs()

    @work(thread=True, exit_on_error=False, group="runs")
    def _read_runs(self) -> None:
        worker = get_current_worker()
        found: list[Rows] = []

        def report(rows: Rows) -> None:
            found[:] = [rows]
            self.post_message(self.Looked(rows, complete=False))

        self._runs.look(report, lambda: not worker.is_cancelled)
        if found and not worker.is_cancelled:
            self.post_message(self.Looked(found[0], complete=True))

    @on(Looked)
    def take_rows(self, message: Looked) -> None:
        """Show the list; a first look that goes on does not take away what an earlier one found."""
        self.complete = self.complete or message.complete
        if message.complete or not self.complete:
            self.rows = message.rows
            self._show_rows()

    def show(self, snapshot: Snapshot) -> None:
        """The list is of all runs, whatever comes of the open one."""
        self.snapshot = snapshot

    def on_resize(self, event: events.Resize) -> None:
        """Other columns may fit, once the layout knows the new size."""
        self.call_after_refresh(self._show_rows)

    def _show_rows(self) -> None:
        """Draw every line again; the highlight stays with its run."""
        options = self.query_one(RunOptions)
        before = self.highlighted
        self.shown = tuple(row for row in self.rows if matches(row, self.query_one("#filter", Input).value))
        now_s = self._clock()
        width = options.scrollable_content_region.width
        self._columns = columns_for(self.shown, width, self.signs, now_s)
        lines = [run_line(row, self._columns, self.signs, now_s) for row in self.shown]
        scrolled = options.scroll_offset.y
        options.set_options([Option(line, id=str(at)) for at, line in enumerate(lines)])
        at = next((at for at, row in enumerate(self.shown) if before and row.run == before.run), 0)
        options.highlighted = at if self.shown else None
        options.scroll_to(y=scrolled, animate=False)
        self.query_one("#titles", Static).update(titles(self._columns))
        self.query_one("#header", Static).update(self._heading())
        self._tell_about()

    @property
    def highlighted(self) -> RunRow | None:
        """The run that enter opens."""
        at = self.query_one(RunOptions).highlighted
        return self.shown[at] if at is not None and at < len(self.shown) else None

    def _heading(self) -> Content:
        live = sum(row.live for row in self.rows)
        where = (
            "named on the command line" if self._runs.named else f"in {printable(str(self._runs.runs_dir))}"
        )
        left = Content.assemble((f"{len(self.rows)} runs", "bold"), (f"  {where}", "$muted"))
        right = Content.styled(f"{live} live", "$success" if live else "$muted")
        if len(self.shown) < len(self.rows):
            right = Content.assemble((f"{len(self.shown)} shown  ", "$warning"), right)
        return spread(left, right, max(1, self.size.width - 2))

    @on(OptionList.OptionHighlighted)
    def _tell_about(self) -> None:
        row = self.highlighted
        if row is not None:
            text = about(row, self._here)
        elif self.rows:
            text = Content.styled("no run has these words; escape shows all", "$warning")
        elif self.complete:
            text = Content.styled("no run yet; start one: dpo-daemon start --profile demo", "$muted")
        else:
            text = Content.styled("looking", "$muted")
        self.query_one("#about", Static).update(text)

    @on(OptionList.OptionSelected)
    def choose(self) -> None:
        """Open the highlighted run, unless it cannot be read."""
        row = self.highlighted
        if row is None:
            return
        if row.state == "damaged":
            self.notify(printable(row.reason), severity="error", markup=False)
            return
        self.post_message(self.Chosen(row.run))

    def action_filter(self) -> None:
        """Type words."""
        self.add_class("-filtering")
        self.query_one("#filter", Input).focus()

    @on(Input.Changed, "#filter")
    def filter(self) -> None:
        """Each letter counts."""
        self._show_rows()

    @on(Input.Submitted, "#filter")
    def to_list(self) -> None:
        """Choose among those that are left."""
        self.query_one(RunOptions).focus()

    async def action_back(self) -> None:
        """Show all again; where all are shown, go back to the run that is open."""
        entry = self.query_one("#filter", Input)
        if self.has_class("-filtering"):
            entry.value = ""
            self.remove_class("-filtering")
            self.query_one(RunOptions).focus()
        elif self.snapshot is not None:
            await self.app.run_action("app.show('overview')")
