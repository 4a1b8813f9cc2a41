"""The profile, what differs from its base, and the environment."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, Static
from textual.widgets.option_list import Option

from dpo_tui.copies import Copy
from dpo_tui.logs.sieve import pattern_of
from dpo_tui.screens.row_list import RowList
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.config import AttemptConfig, Config, ConfigRow, ConfigSection
from dpo_tui.wants import ScreenName

MAX_NAME_CELLS = 30
WITH_MEANING = 100


class ConfigScreen(RunScreen):
    """One attempt's profile section by section, then the surroundings it ran in."""

    NAME: ClassVar[ScreenName] = "config"
    HELP: ClassVar[str] = """\
base: what the shipped profile of this name says, else the schema's default, where that differs
attempt N: what the attempt before had, where that differs"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash", "filter", "Filter", key_display="/", tooltip="rows whose name, value or meaning match"
        ),
        Binding("d", "differences", "Differences", tooltip="only what differs, or all"),
        Binding("right_square_bracket", "other(1)", "Next attempt", show=False, key_display="]"),
        Binding("left_square_bracket", "other(-1)", "Attempt before", show=False, key_display="["),
        Binding("escape", "leave", "Back", show=False),
    ]
    DEFAULT_CSS = """
    ConfigScreen {
        #config-state, #config-command { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        #config-command { color: $muted; }
        #config-filter { height: 1; border: none; padding: 0 1; display: none; }
        #config-filter.-open { display: block; }
    }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__(signs)
        self.attempt: AttemptConfig | None = None
        """What is shown."""
        self.rows: list[ConfigRow | None] = []
        """By line of the list; None is a heading."""
        self.only_differences = False
        self._config = Config()
        self._number: int | None = None
        self._filter = ""
        self._width = 0

    def compose_body(self) -> ComposeResult:
        """What is compared with what, the command, and the rows."""
        yield Static(id="config-state")
        yield Static(id="config-command")
        yield RowList(id="config-rows")
        yield Input(placeholder="text or regular expression", id="config-filter")

    def on_mount(self) -> None:
        """Keys go to the rows."""
        super().on_mount()
        self.query_one(RowList).focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; the rows are made again only when they changed."""
        super().show(snapshot)
        if snapshot.record is None:
            return
        if snapshot.record.config is not self._config or self.size.width != self._width:
            self._config, self._width = snapshot.record.config, self.size.width
            self._fill()
        elif not self._config.attempts:
            self._tell()

    def copies(self) -> list[Copy]:
        """The row that is marked, and the command that starts the same job again."""
        at, own = self.query_one(RowList).highlighted, []
        row = self.rows[at] if at is not None and at < len(self.rows) else None
        if row is not None:
            own = [Copy(f"value of {row.path}", row.value), Copy("setting", f"{row.path}={row.value}")]
        if self.attempt is not None and self.attempt.command:
            own.append(Copy("command that repeats the run", self.attempt.command))
        return own + super().copies()

    def action_filter(self) -> None:
        """Ask for what to show."""
        search = self.query_one("#config-filter", Input)
        search.add_class("-open")
        search.focus()

    @on(Input.Changed, "#config-filter")
    def narrow(self, event: Input.Changed) -> None:
        """Rows change while one types."""
        self._filter = event.value
        self._fill()

    @on(Input.Submitted, "#config-filter")
    def close_filter(self) -> None:
        """Enter goes to the rows that are left."""
        self.query_one("#config-filter").remove_class("-open")
        self.query_one(RowList).focus()

    def action_leave(self) -> None:
        """Forget the filter, then go back to the overview."""
        search = self.query_one("#config-filter", Input)
        if search.has_class("-open") or self._filter:
            search.value = ""
            self.close_filter()
        else:
            self.app.call_later(self.app.run_action, "app.show('overview')")

    def action_differences(self) -> None:
        """Only what differs, or all."""
        self.only_differences = not self.only_differences
        self._fill()

    def action_other(self, by: int) -> None:
        """The attempt before or behind."""
        numbers = [attempt.number for attempt in self._config.attempts]
        if self.attempt is not None and self.attempt.number + by in numbers:
            chosen = self.attempt.number + by
            self._number = None if chosen == numbers[-1] else chosen
            self._fill()

    def _fill(self) -> None:
        found = self._config.attempts
        newest = found[-1] if found else None
        self.attempt = next((attempt for attempt in found if attempt.number == self._number), newest)
        list_ = self.query_one(RowList)
        kept = self.rows[list_.highlighted] if list_.highlighted is not None and self.rows else None
        self.rows, options = [], []
        for section in self.attempt.sections if self.attempt is not None else ():
            rows = [row for row in section.rows if self._wanted(row, section)]
            if rows:
                self.rows += [None, *rows]
                options.append(Option(Content.styled(section.title, "bold $primary"), disabled=True))
                options += [Option(self._line(row)) for row in rows]
        list_.clear_options()
        list_.add_options(options)
        paths = [row.path if row is not None else "" for row in self.rows]
        list_.highlighted = (
            paths.index(kept.path) if kept and kept.path in paths else (1 if options else None)
        )
        self._tell()

    def _wanted(self, row: ConfigRow, section: ConfigSection) -> bool:
        if self.only_differences and not row.differs:
            return False
        pattern = pattern_of(self._filter)
        texts = (row.path, row.value, row.meaning, section.title)
        return pattern is None or any(pattern.search(text) for text in texts)

    def _line(self, row: ConfigRow) -> Content:
        name = row.path.rpartition(".")[2] if row.meaning else row.path
        sign = self.signs.warning if row.differs else " "
        parts: list[str | tuple[str, str]] = [
            (f"{sign} ", "$warning"),
            (f"{name:<{min(MAX_NAME_CELLS, max(18, self._width // 4))}} ", "$muted"),
            (row.value, "bold" if row.differs else "$foreground"),
        ]
        if row.base is not None:
            parts.append((f"   base {row.base}", "$warning"))
        if row.before is not None and self.attempt is not None:
            parts.append((f"   attempt {self.attempt.number - 1} {row.before}", "$accent"))
        line = Content.assemble(*parts)
        if row.meaning and self._width >= WITH_MEANING:
            gap = max(3, self._width // 2 - line.cell_length)
            line = Content.assemble(line, " " * gap, (f"{row.meaning} ({row.unit})", "$muted"))
        return line

    def _tell(self) -> None:
        state, command = self.query_one("#config-state", Static), self.query_one("#config-command", Static)
        command.update(Content(self.attempt.command if self.attempt is not None else ""))
        state.update(self._state())

    def _state(self) -> Content:
        attempt = self.attempt
        if attempt is None:
            foreign = self.snapshot is not None and bool(self.snapshot.step)
            said = "the log of another program: it has no profile" if foreign else "no attempt yet"
            return Content.styled(said, "$muted")
        if not attempt.has_profile:
            return Content.styled(
                f"attempt {attempt.number} has no profile.toml that can be read", "$warning"
            )
        rows = [row for section in attempt.sections for row in section.rows]
        differ, changed = (
            sum(row.base is not None for row in rows),
            sum(row.before is not None for row in rows),
        )
        parts: list[str | tuple[str, str]] = []
        if len(self._config.attempts) > 1:
            parts.append((f"attempt {attempt.number} of {len(self._config.attempts)}  ", "bold"))
        parts.append((f"{differ or 'nothing'}", "bold $warning" if differ else "bold $success"))
        parts.append(f" differs from {attempt.base}" if differ < 2 else f" differ from {attempt.base}")
        if changed:
            parts.append((f"  {changed} changed since attempt {attempt.number - 1}", "$accent"))
        if self.only_differences:
            parts.append(("  only differences", "$accent"))
        if self._filter:
            parts.append((f"  filter {self._filter}", "$accent"))
        return Content.assemble(*parts)
