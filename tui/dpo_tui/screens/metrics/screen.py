"""Every series of the run: charts that zoom, pan and point together."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.widgets import Input

from dpo_telemetry.text import printable
from dpo_tui.charts.axis import STEP, Axis
from dpo_tui.charts.layout import arrange
from dpo_tui.charts.wall import ChartWall, Tile, View
from dpo_tui.copies import Copy
from dpo_tui.screens.metrics.groups import Group, grouped, matching, shown_title
from dpo_tui.screens.metrics.keys import HELP, KEYS
from dpo_tui.screens.metrics.lines import Lines
from dpo_tui.screens.metrics.moves import Look, nonfinite_after, whole_steps
from dpo_tui.screens.metrics.status import Shown, StatusLine
from dpo_tui.screens.screen import RunScreen
from dpo_tui.settings import Settings
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.series import Metrics
from dpo_tui.wants import ScreenName

SMOOTHINGS = (0.0, 0.6, 0.9, 0.97, 0.99)


class MetricsScreen(RunScreen):
    """A grid of charts, or one of them."""

    NAME: ClassVar[ScreenName] = "metrics"
    HELP: ClassVar[str] = HELP
    AUTO_FOCUS: ClassVar[str | None] = ""
    BINDINGS: ClassVar[list[BindingType]] = KEYS

    DEFAULT_CSS = """
    MetricsScreen {
        #shown { padding: 0 1; }
        #filter { display: none; height: 1; border: none; padding: 0 1; }
        #filter.-open { display: block; }
        #wall { margin: 0 1; }
    }
    """

    class Chose(Message):
        """The user chose how charts are drawn; worth keeping."""

        def __init__(self, **changes: Any) -> None:
            super().__init__()
            self.changes = changes

    def __init__(self, signs: Signs, settings: Settings | None = None) -> None:
        super().__init__(signs)
        settings = settings or Settings()
        self.smoothing = settings.smoothing
        self.log_scale = settings.log_scale
        self.axis_name: str = settings.x_axis
        self.look = Look()
        self.full = False
        self.selected = 0
        """Place of the chart that the keys act on, among those that the filter leaves."""
        self.filter = ""
        self.metrics: Metrics | None = None
        self.groups: tuple[Group, ...] = ()
        """Charts that the filter leaves."""
        self._all_groups: tuple[Group, ...] = ()
        self._lines = Lines()
        self._pending: tuple[str | None, int | None] | None = None
        self._hovering = False

    def compose_body(self) -> ComposeResult:
        """What is shown, the filter while it is open, and the charts."""
        yield StatusLine(id="shown")
        yield Input(id="filter", compact=True)
        yield ChartWall(glyphs=self.signs.charts, id="wall")

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; nothing is done where no row was added."""
        super().show(snapshot)
        if snapshot.metrics is None or snapshot.metrics is self.metrics:
            return
        known = self.metrics is not None and list(self.metrics) == list(snapshot.metrics)
        self.metrics = snapshot.metrics
        if not known:
            self._all_groups = grouped(snapshot.metrics)
            self._apply_filter()
        self.look.see(whole_steps(snapshot.metrics))
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.jump(*pending)
        self.redraw()

    def jump(self, metric: str | None, step: int | None = None) -> None:
        """Select a metric's chart, and put a step in the middle and point at it; full size without a step."""
        if self.metrics is None:
            self._pending = metric, step
            return
        if metric is not None and metric in self.metrics:
            if not self._select_metric(metric):
                self.set_filter("")
                self._select_metric(metric)
            self.full = step is None
        if step is not None:
            self.look.jump(step)
        self.redraw()

    def redraw(self) -> None:
        """Hand the charts of this page to the wall, which draws what changed."""
        if not self.ready:
            return
        wall = self.query_one(ChartWall)
        grid = self._grid()
        page, first = self._page(grid)
        self.look.axis = self._axis()
        view = View(
            self.look.steps, self.look.axis, self.log_scale,
            self.metrics.attempt_starts if self.metrics is not None else (),
        )  # fmt: skip
        groups = self.groups[first : first + grid[0] * grid[1]]
        tiles = [self._tile(group) for group in groups]
        alone = len(self.groups) == 1 or self.full
        wall.show(
            tiles, view, grid, selected=None if alone else self.selected - first, cursor=self.look.cursor,
            empty=self._emptiness(),
        )  # fmt: skip
        count = grid[0] * grid[1]
        self.query_one(StatusLine).show(
            Shown(
                charts=len(self.groups), of_charts=len(self._all_groups), page=page,
                pages=-(-len(self.groups) // count), steps=self.look.steps, axis=self.look.axis.name,
                smoothing=self.smoothing, log=self.log_scale, following=self.look.following,
                filter=self.filter, cursor=self.look.cursor,
                axes=self.metrics.axes if self.metrics is not None else (),
            )
        )  # fmt: skip

    def copies(self) -> list[Copy]:
        """The values at the pointer, else the newest, of the charts in sight come first."""
        found = []
        for tile in self.query_one(ChartWall).tiles if self.ready else ():
            for line in tile.lines:
                cursor = self.look.cursor
                at = line.at(cursor if cursor is not None else 2**62) if line.titled else None
                if at is not None:
                    found.append(Copy(f"{tile.title}, {line.name} at step {at[0]}", repr(at[1])))
        return found + super().copies()

    def set_filter(self, text: str) -> None:
        """Show only the charts that match."""
        chosen = self.groups[self.selected].title if self.groups else None
        self.filter = text
        self._apply_filter()
        titles = [group.title for group in self.groups]
        self.selected = titles.index(chosen) if chosen in titles else 0
        box = self.query_one("#filter", Input)
        if box.value != text:
            box.value = text
        self.redraw()

    def action_filter(self) -> None:
        """Type a filter."""
        box = self.query_one("#filter", Input)
        box.add_class("-open")
        box.focus()

    @on(Input.Changed, "#filter")
    def filter_typed(self, event: Input.Changed) -> None:
        """Each key filters."""
        if event.value != self.filter:
            self.set_filter(event.value)

    @on(Input.Submitted, "#filter")
    def keep_filter(self) -> None:
        """Back to the charts."""
        self._close_filter()

    def action_smooth(self) -> None:
        """The next strength."""
        stronger = [strength for strength in SMOOTHINGS if strength > self.smoothing]
        self.smoothing = stronger[0] if stronger else 0.0
        self._chose(smoothing=self.smoothing)

    def action_log(self) -> None:
        """Logarithmic values or not."""
        self.log_scale = not self.log_scale
        self._chose(log_scale=self.log_scale)

    def action_axis(self) -> None:
        """The next x axis that the run has."""
        names = [axis.name for axis in self.metrics.axes] if self.metrics is not None else ["step"]
        self.axis_name = names[(names.index(self._axis().name) + 1) % len(names)]
        self._chose(x_axis=self.axis_name)

    def action_full(self) -> None:
        """One chart, or all of them again."""
        self.full = not self.full and bool(self.groups)
        self.redraw()

    def action_follow(self) -> None:
        """Follow the newest step, or stand still."""
        self.look.follow()
        self.redraw()

    def action_zoom(self, factor: float) -> None:
        """Nearer or farther."""
        self.look.zoom(factor)
        self.redraw()

    def action_everything(self) -> None:
        """All steps."""
        self.look.everything()
        self.redraw()

    def action_pan(self, share: float) -> None:
        """Earlier or later."""
        self.look.pan(share)
        self.redraw()

    def action_point(self, cells: int) -> None:
        """Point some columns farther."""
        if self.look.steps is not None:
            cursor, wall = self.look.cursor, self.query_one(ChartWall)
            if cursor is None or not self.look.steps[0] <= cursor <= self.look.steps[1]:
                self._point(self.look.steps[1])
            else:
                self._point(wall.neighbour(self.selected - self._page(self._grid())[1], cursor, cells))

    def action_point_step(self, by: int) -> None:
        """Point at the next logged step of the selected chart, or at the one before."""
        if self.metrics is None or not self.groups:
            return
        steps = self.metrics[self.groups[self.selected].members[0].metric].effective.steps
        if len(steps):
            cursor = self.look.cursor
            found = len(steps) - 1
            if cursor is not None:
                found = int(steps.searchsorted(cursor, side="right" if by > 0 else "left")) + (by > 0) - 1
            self._point(int(steps[min(max(found, 0), len(steps) - 1)]))

    def action_nonfinite(self, forward: bool) -> None:
        """Point at the next value that is not finite, and select its chart."""
        if self.metrics is None:
            return
        found = nonfinite_after(self.groups, self.metrics, self.look.cursor, forward)
        if found is None:
            self.notify("every value of these charts is finite", markup=False)
            return
        self.selected = found[0]
        self._point(found[1])

    def action_select(self, by: int) -> None:
        """The next chart, on the next page after the last of this one."""
        if self.groups:
            self.selected = (self.selected + by) % len(self.groups)
            self.redraw()

    def action_select_row(self, by: int) -> None:
        """The chart above or below."""
        self._select_clamped(self.selected + by * self._grid()[0])

    def action_page(self, by: int) -> None:
        """The next page."""
        columns, rows = self._grid()
        self._select_clamped(self.selected + by * columns * rows)

    async def action_back(self) -> None:
        """Undo one thing: the filter box, the full size, the pointer, the filter; then leave."""
        box = self.query_one("#filter", Input)
        if box.has_focus:
            self._close_filter()
            self.set_filter("")
        elif self.full:
            self.action_full()
        elif self.look.cursor is not None:
            self._point(None)
        elif self.filter:
            self.set_filter("")
            self._close_filter()
        else:
            await self.app.run_action("app.show('overview')")

    @on(ChartWall.Resized)
    def refit(self) -> None:
        """Another number of charts may fit."""
        self.redraw()

    @on(ChartWall.Hovered)
    def hovered(self, message: ChartWall.Hovered) -> None:
        """The pointer follows the mouse, and goes when the mouse goes."""
        if message.step is not None or self._hovering:
            self._hovering = message.step is not None
            self.look.cursor = message.step
            self.redraw()

    @on(ChartWall.Zoomed)
    def wheel_turned(self, message: ChartWall.Zoomed) -> None:
        """Zoom where the mouse is."""
        self.look.zoom(message.factor, message.step)
        self.redraw()

    @on(ChartWall.Panned)
    def dragged(self, message: ChartWall.Panned) -> None:
        """The charts go with the mouse."""
        self.action_pan(message.share)

    @on(ChartWall.Picked)
    def picked(self, message: ChartWall.Picked) -> None:
        """Select a chart; twice is full size."""
        self._close_filter()
        self.selected = self._page(self._grid())[1] + message.place
        if message.twice:
            self.full = not self.full
        self.redraw()

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        """What changed while another screen was in front."""
        self.redraw()

    def _chose(self, **changes: Any) -> None:
        self.post_message(self.Chose(**changes))
        self.redraw()

    def _point(self, step: int | None) -> None:
        self._hovering = False
        if step is None:
            self.look.cursor = None
        else:
            self.look.bring(step)
        self.redraw()

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("-open")
        self.set_focus(None)

    def _apply_filter(self) -> None:
        self.groups = matching(self._all_groups, self.filter)
        self.selected = min(self.selected, max(0, len(self.groups) - 1))

    def _select_metric(self, metric: str) -> bool:
        for place, group in enumerate(self.groups):
            if any(member.metric == metric for member in group.members):
                self.selected = place
                return True
        return False

    def _select_clamped(self, place: int) -> None:
        self.selected = min(max(place, 0), max(0, len(self.groups) - 1))
        self.redraw()

    def _grid(self) -> tuple[int, int]:
        size = self.query_one(ChartWall).size
        return (1, 1) if self.full else arrange(size.width, size.height, len(self.groups))

    def _page(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Page of the selected chart, and the place of the page's first chart."""
        count = grid[0] * grid[1]
        return self.selected // count, self.selected // count * count

    def _axis(self) -> Axis:
        axes = self.metrics.axes if self.metrics is not None else (STEP,)
        return next((axis for axis in axes if axis.name == self.axis_name), STEP)

    def _tile(self, group: Group) -> Tile:
        assert self.metrics is not None
        lines = self._lines.of(group, self.metrics, self.smoothing)
        how = []
        if self.smoothing:
            how.append(f"EMA {self.smoothing:g}")
        if self.log_scale and self._lines.any_positive(group, self.metrics, self.smoothing):
            how.append("log")
        return Tile(shown_title(group) + (f" ({', '.join(how)})" if how else ""), lines)

    def _emptiness(self) -> str:
        return f"no metric matches {printable(self.filter)!r}" if self._all_groups else "no data yet"
