"""Causes with their symptoms, and of the chosen one what, since when, why and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from operator import is_
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import RULES
from dpo_telemetry.series.columns import Floats
from dpo_telemetry.text import printable
from dpo_tui.attending import Attended
from dpo_tui.attention import Attention, key_of
from dpo_tui.charts.widget import LineChart
from dpo_tui.copies import Copy
from dpo_tui.panels.alert_details import rests_on, row_of_alert, row_of_group, told
from dpo_tui.panels.alerts import record_problems, shown_groups
from dpo_tui.panels.panel import Panel, spread
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.alerts import Group
from dpo_tui.views.evidence import CONTEXT, charts
from dpo_tui.views.series import MetricView
from dpo_tui.wants import ScreenName

MAX_CHARTS = 6
ROWS_OF_TEXT = 12
"""What the words beside the charts take, about."""
CHART_ROWS = 9
WIDE_ENOUGH_FOR_TWO = 100
BRIEF_BELOW = 10
"""Rows of the details below which they do not say again what the list says."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list: a cause, or with `alert` one alert under it."""

    id: str
    group: Group
    alert: HealthAlert | None
    left: Content
    right: Content

    @property
    def alerts(self) -> tuple[HealthAlert, ...]:
        """What the keys act on."""
        return self.group.all_alerts if self.alert is None else (self.alert,)


def rows_of(groups: Sequence[Group], signs: Signs) -> list[Row]:
    """Causes, each with its further alerts and its symptoms below it."""
    rows: list[Row] = []
    for group in groups:
        name = group.finding.codes[0] if group.finding is not None else " ".join(key_of(group.first))
        rows.append(Row(name, group, None, *row_of_group(group, signs)))
        rows += [
            Row(f"{name}//{' '.join(key_of(alert))}", group, alert, *row_of_alert(group, alert, signs))
            for alert in (*group.alerts[1:], *group.symptoms)
        ]
    return _apart(rows)


def _apart(rows: Sequence[Row]) -> list[Row]:
    """With a number where an id is there again: metrics "" and None, of a log that has both, give the same."""
    taken: dict[str, Row] = {}
    for row in rows:
        numbers = (f"{row.id} {number}" for number in count(2))
        name = row.id if row.id not in taken else next(name for name in numbers if name not in taken)
        taken[name] = replace(row, id=name)
    return list(taken.values())


class AlertList(OptionList):
    """The list; a click chooses a line, enter goes to its chart."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.jump", "Chart", show=False)]


class AlertsScreen(RunScreen):
    """Causes on top or on the left, the chosen one below or beside them."""

    NAME: ClassVar[ScreenName] = "alerts"
    HELP: ClassVar[str] = (
        "up, down: choose a cause or a symptom\n"
        "enter, j: its metric in the charts, at the step where it starts\n"
        "a: acknowledge, or take that back; it stays in the list and asks again when it gets worse\n"
        "m: mute its code in this run, or hear it again; muted ones are last and not counted\n"
        "tab: to the details, which scroll"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "acknowledge", "Acknowledge"),
        Binding("m", "mute", "Mute"),
        Binding("j", "jump", "Chart"),
    ]
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - Textual reads it from the class
        (0, "-normal"),
        (110, "-wide"),
    ]

    DEFAULT_CSS = """
    AlertsScreen {
        #alert-record { height: auto; padding: 0 1; }
        #nothing { height: 1fr; padding: 1 2; color: $muted; display: none; }
        #alert-body { height: 1fr; layout: vertical; }
        AlertList, AlertList:focus {
            border: none; height: auto; max-height: 30%; padding: 0 1; scrollbar-size: 1 1;
            background: $surface; background-tint: transparent;
        }
        AlertList > .option-list--option-highlighted, AlertList:focus > .option-list--option-highlighted {
            background: $primary 25%; color: $foreground; text-style: none;
        }
        #details { height: 1fr; padding: 0 1; scrollbar-size: 1 1; }
        #told, #rests-on { height: auto; }
        #evidence { height: 1fr; min-height: 6; grid-gutter: 0 2; }
        &.-wide {
            #alert-body { layout: horizontal; }
            AlertList, AlertList:focus { width: 2fr; max-width: 64; height: 1fr; max-height: 100%; }
            #details { width: 3fr; padding: 0 2; }
            #told, #evidence { margin: 0 0 1 0; }
        }
        &.-without {
            #nothing { display: block; }
            #alert-body { display: none; }
        }
    }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__(signs)
        self.rows: list[Row] = []
        self._chosen: str | None = None
        """Id of the line that was moved to; None stays with the gravest."""
        self._prompts: list[Content] = []
        self._texts: dict[str, Content] = {}
        self._shown: tuple[object, ...] = ()
        self._values: list[Floats] = []

    def compose_body(self) -> ComposeResult:
        """The list, then what is said of the chosen line."""
        yield Panel(
            lambda shown, _w, _h, signs: record_problems(shown, signs), signs=self.signs, id="alert-record"
        )
        yield Static(
            f"nothing wrong so far\n\n{len(RULES)} rules look at every row that is logged; what they find is"
            " shown here.",
            id="nothing",
        )
        with Vertical(id="alert-body"):
            yield AlertList()
            with VerticalScroll(id="details"):
                yield Static(id="told", markup=False)
                with Grid(id="evidence"):
                    for at in range(MAX_CHARTS):
                        yield LineChart("", glyphs=self.signs.charts, id=f"evidence-{at}")
                yield Static(id="rests-on", markup=False)

    def on_mount(self) -> None:
        """The list has the keys."""
        super().on_mount()
        self.query_one(AlertList).focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; the chosen line stays chosen."""
        super().show(snapshot)
        self.rows = rows_of(shown_groups(snapshot), self.signs)
        self.set_class(not self.rows, "-without")
        with self.prevent(OptionList.OptionHighlighted):
            self._fill_list()
        self._show_details()

    def on_resize(self, event: events.Resize) -> None:
        """Lines and charts fit the room once the layout knows it."""
        super().on_resize(event)
        self.call_after_refresh(self._fit)

    @property
    def row(self) -> Row | None:
        """The chosen line; where its alert is a symptom no more, or of another cause, the line that it has now."""
        alert = (self._chosen or "").rpartition("//")[2]
        same = [row for row in self.rows if row.id == self._chosen]
        moved = [row for row in self.rows if " ".join(key_of(row.alerts[0])) == alert]
        return next(iter(same + moved + self.rows), None)

    @on(OptionList.OptionHighlighted)
    def choose(self, event: OptionList.OptionHighlighted) -> None:
        """Moved to by key or mouse."""
        current = event.option_list.highlighted == event.option_index
        if current and self.row is not None and event.option_id != self.row.id:
            self._chosen = event.option_id
            self._show_details()

    def action_acknowledge(self) -> None:
        """Mark as seen, or take that back."""
        if self.snapshot is not None and (row := self.row) is not None:
            attention = self.snapshot.attention
            seen = all(attention.seen(alert) for alert in row.alerts)
            self._chosen = row.id
            self._attend(attention.with_seen(row.alerts, seen=not seen))

    def action_mute(self) -> None:
        """Hide the code from counts and the overview, or take that back."""
        if self.snapshot is not None and (row := self.row) is not None:
            code = row.alerts[0].code
            attention = self.snapshot.attention
            self._chosen = row.id
            self._attend(attention.with_muted(code, muted=code not in attention.muted))

    def action_jump(self) -> None:
        """Show the metric in the charts, at the first step in question."""
        if (row := self.row) is None or self.snapshot is None:
            return
        alert = row.alerts[0]
        if alert.metric not in (self.snapshot.metrics or ()) or alert.step is None:
            self.notify(f"{printable(alert.code)}: no metric of it is in the charts", markup=False)
        else:
            jump = getattr(self.app, "action_jump", None)
            if jump is not None:
                self.call_next(jump, alert.metric, alert.step)

    def copies(self) -> list[Copy]:
        """What is said of the chosen line, before what any screen offers."""
        if (row := self.row) is None:
            return super().copies()
        alert = row.alerts[0]
        own = [Copy("what is wrong", printable(alert.message)), Copy("what to try", printable(alert.advice))]
        return [copy for copy in own if copy.text] + super().copies()

    def _attend(self, attention: Attention) -> None:
        """Shown at once, and told to the app, which keeps it."""
        if self.snapshot is not None:
            self.post_message(Attended(attention))
            self.show(replace(self.snapshot, attention=attention))

    def _fill_list(self) -> None:
        """New lines where they differ from those that are there."""
        options = self.query_one(AlertList)
        width = options.scrollable_content_region.width
        prompts = [spread(row.left, row.right, width) for row in self.rows]
        if [option.id for option in options.options] != [row.id for row in self.rows]:
            options.set_options(
                Option(prompt, row.id) for prompt, row in zip(prompts, self.rows, strict=True)
            )
        else:
            for at, (prompt, before) in enumerate(zip(prompts, self._prompts, strict=True)):
                if not prompt.is_same(before):
                    options.replace_option_prompt_at_index(at, prompt)
        self._prompts = prompts
        if (row := self.row) is not None and options.highlighted != (at := self.rows.index(row)):
            options.highlighted = at

    def _show_details(self) -> None:
        row, snapshot = self.row, self.snapshot
        if row is None or snapshot is None:
            return
        brief = self.query_one("#details").size.height < BRIEF_BELOW
        for name, text in (
            ("#told", told(row.group, row.alert, snapshot, self.signs, brief=brief)),
            ("#rests-on", rests_on(row.group, row.alert)),
        ):
            if name not in self._texts or not text.is_same(self._texts[name]):
                self._texts[name] = text
                static = self.query_one(name, Static)
                static.update(text)
                static.display = bool(text.plain)
        self._show_charts(row, snapshot)

    def _show_charts(self, row: Row, snapshot: Snapshot) -> None:
        """As many metrics as there is room for; a chart that did not change is left alone."""
        room = self.query_one("#details").size
        columns = 2 if room.width >= WIDE_ENOUGH_FOR_TWO else 1
        fitting = min(MAX_CHARTS, columns * max(1, (room.height - ROWS_OF_TEXT) // CHART_ROWS))
        metrics: Mapping[str, MetricView] = snapshot.metrics or {}
        names = [*(alert.metric or "" for alert in row.alerts), *CONTEXT]
        values = [metrics[name].effective.values for name in names if name in metrics]
        shown = (row.alerts, fitting, columns, len(values))
        if shown == self._shown and all(map(is_, values, self._values)):
            return
        self._shown, self._values = shown, values
        found = charts(row.alerts, snapshot.metrics, fitting)
        grid = self.query_one("#evidence", Grid)
        grid.display = bool(found)
        grid.styles.grid_size_columns = min(columns, max(1, len(found)))
        for at in range(MAX_CHARTS):
            chart = self.query_one(f"#evidence-{at}", LineChart)
            chart.display = at < len(found)
            if at < len(found):
                chart.title = printable(found[at].metric)
                chart.show(found[at].lines, found[at].step_range)

    def _fit(self) -> None:
        if self.snapshot is not None and self.ready and self.query(AlertList):
            self._fill_list()
            self._show_details()
