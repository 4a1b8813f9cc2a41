"""Memory over time, by component, against the plan."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from dpo_telemetry.text import printable
from dpo_tui.copies import Copy
from dpo_tui.panels import memory_map
from dpo_tui.panels.memory_notes import autopsy_lines, notes, place_line
from dpo_tui.panels.memory_tables import components_table, phases_table
from dpo_tui.panels.panel import Panel
from dpo_tui.screens.memory_timeline import MemoryTimeline
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.memory import MemoryView
from dpo_tui.views.memory_rows import MemoryRow, Place
from dpo_tui.wants import ScreenName, Wants

MAP_LINES = 2
"""Of the map, where it lies above the chart."""
ROW_OF_MAP = 8
"""Places that up and down skip: as many cards as most hosts have."""


class PlacesMap(Widget):
    """All ranks and cards; a click chooses one."""

    class Chosen(Message):
        """A place was clicked."""

        def __init__(self, place: Place) -> None:
            super().__init__()
            self.place = place

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self._rows: tuple[MemoryRow, ...] = ()
        self._chosen: Place | None = None
        self._places: Mapping[tuple[int, int], Place] = {}

    def show(self, rows: tuple[MemoryRow, ...], chosen: Place | None) -> None:
        """Draw these from now on."""
        if rows is not self._rows or chosen != self._chosen:
            self._rows, self._chosen = rows, chosen
            self.refresh()

    def render(self) -> Content:
        """As much as there is room for."""
        width, height = self.size
        if not self._rows or not width or not height:
            return Content("")
        tall = height > MAP_LINES
        closing = memory_map.worst(self._rows, width) if tall else []
        room = max(1, height - len(closing) - tall)
        found = memory_map.heat_map(self._rows, width, room, self._signs, self._chosen)
        self._places = found.places
        lines = list(found.lines)
        if tall:
            lines += [*closing, memory_map.legend(self._rows, self._signs, found.together)]
        return Content("\n").join(lines[:height])

    def on_click(self, event: events.Click) -> None:
        """Choose what lies under the mouse."""
        place = self._places.get((event.x, event.y))
        if place is not None:
            self.post_message(self.Chosen(place))


class MemoryScreen(RunScreen):
    """One rank or card at a time, chosen on a map of all."""

    NAME: ClassVar[ScreenName] = "memory"
    HELP = (
        "left, right: the rank or card before and after\n"
        "up, down: eight further, as a host is\n"
        "w: the fullest\n"
        "o: components in the order of the ledger, or the largest difference first\n"
        "z: the chart from 0 up to the card, or as near as what was measured\n"
        "click: choose a GPU on the map\n"
        "difference: measured minus planned; from an interval the distance to its nearer end"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Rank", key_display="←"),
        Binding("right", "move(1)", "Rank", key_display="→"),
        Binding("up", f"move(-{ROW_OF_MAP})", "Host before", show=False),
        Binding("down", f"move({ROW_OF_MAP})", "Host after", show=False),
        Binding("home", "end(False)", "First", show=False),
        Binding("end", "end(True)", "Last", show=False),
        Binding("w", "fullest", "Fullest"),
        Binding("o", "order", "Order"),
        Binding("z", "scale", "Scale"),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (76, "-normal"), (150, "-wide")]  # noqa: RUF012 - Textual's
    VERTICAL_BREAKPOINTS = [(0, "-short"), (21, "-low"), (32, "-tall")]  # noqa: RUF012 - the same

    DEFAULT_CSS = """
    MemoryScreen {
        layout: vertical;
        #place { height: 1; padding: 0 1; }
        #places { height: 2; padding: 0; margin: 0 1; display: none; }
        #timeline { height: 1fr; min-height: 4; margin: 0 1; }
        #tables { height: 10; padding: 0 1; }
        #tables > Panel { width: 1fr; height: 1fr; }
        #components { margin: 0 2 0 0; }
        #autopsy { height: auto; max-height: 9; padding: 0 1; display: none; }
        #notes { height: auto; max-height: 4; padding: 0 1; }
    }
    MemoryScreen.-many #places { display: block; }
    MemoryScreen.-died #autopsy { display: block; }
    MemoryScreen.-tall {
        #place { height: 2; padding: 1 1 0 1; }
        #timeline { margin: 1 1 0 1; }
        #tables { height: 13; padding: 1 1 0 1; }
        #autopsy { max-height: 14; padding: 1 1 0 1; }
        #notes { padding: 0 1 0 1; }
    }
    MemoryScreen.-tall.-many #places { height: 5; margin: 1 1 0 1; }
    MemoryScreen.-tall.-wide.-many #places { height: 12; }
    MemoryScreen.-tall.-died #tables { height: 11; }
    MemoryScreen.-tall.-died #places { display: none; }
    MemoryScreen.-tall.-wide.-died.-many #places { display: block; }
    MemoryScreen.-low.-died #timeline, MemoryScreen.-low.-died #places { display: none; }
    MemoryScreen.-low.-died #autopsy { height: 1fr; max-height: 100%; }
    MemoryScreen.-short #timeline, MemoryScreen.-short #places, MemoryScreen.-narrow #phases { display: none; }
    MemoryScreen.-short #tables { height: 1fr; }
    MemoryScreen.-short.-died #tables, MemoryScreen.-short.-died #notes { display: none; }
    MemoryScreen.-short.-died #autopsy { height: 1fr; max-height: 100%; }
    MemoryScreen.-narrow #components { margin: 0; }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__(signs)
        self.largest_first = False

    def compose_body(self) -> ComposeResult:
        """What is shown, where it is among all, then over time, against the plan, and in words."""
        signs = self.signs
        yield Panel(_place, signs=signs, id="place")
        yield PlacesMap(signs, id="places")
        yield MemoryTimeline(signs, id="timeline")
        with Horizontal(id="tables"):
            yield Panel(self._components, signs=signs, id="components")
            yield Panel(_phases, signs=signs, id="phases")
        yield Panel(_autopsy, signs=signs, id="autopsy")
        yield Panel(_notes, signs=signs, id="notes")

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; it may be of a time when this screen was not in front."""
        view = _view(snapshot)
        self.set_class(len(snapshot.memory) > 1, "-many")
        self.set_class(view.autopsy is not None, "-died")
        super().show(snapshot)
        for places in self.query(PlacesMap):
            places.show(snapshot.memory, self._place)
        for timeline in self.query(MemoryTimeline):
            if snapshot.memory_view is not None:
                timeline.show(snapshot.memory_view)

    def action_move(self, by: int) -> None:
        """Show another rank or card."""
        places = self._places
        if places:
            at = places.index(self._place) if self._place in places else 0
            self._choose(places[max(0, min(len(places) - 1, at + by))])

    def action_end(self, last: bool) -> None:
        """Show the first or the last one."""
        if places := self._places:
            self._choose(places[-1 if last else 0])

    def action_fullest(self) -> None:
        """Show the rank or card with the largest share of its card, or of its plan."""
        rows = self.snapshot.memory if self.snapshot is not None else ()
        if rows:
            self._choose(max(rows, key=lambda row: row.share or 0).place)

    def action_order(self) -> None:
        """Order of the components."""
        self.largest_first = not self.largest_first
        self.query_one("#components", Panel).refresh()

    def action_scale(self) -> None:
        """Scale of the chart."""
        self.query_one(MemoryTimeline).toggle_scale()

    def on_places_map_chosen(self, message: PlacesMap.Chosen) -> None:
        """A click on the map."""
        self._choose(message.place)

    def copies(self) -> list[Copy]:
        """What was measured, component by component, and the command that holds it against the plan."""
        view = _view(self.snapshot)
        if self.snapshot is None or view.row is None:
            return super().copies()
        found = [
            Copy(
                "command that shows the plan", f"dpo-daemon plan {shlex.quote(printable(self.snapshot.name))}"
            )
        ]
        found += [
            Copy(f"{printable(row.name)}, bytes", str(row.measured_bytes))
            for row in view.components
            if row.measured_bytes is not None
        ]
        return [*found, *super().copies()]

    @property
    def _places(self) -> list[Place]:
        return [row.place for row in self.snapshot.memory] if self.snapshot is not None else []

    @property
    def _place(self) -> Place | None:
        """What was asked for, else what is shown."""
        view = _view(self.snapshot)
        asked = self._wants.memory_place if self._wants is not None else None
        return asked if asked is not None else view.row.place if view.row is not None else None

    @property
    def _wants(self) -> Wants | None:
        wants = getattr(self.app, "wants", None)
        return wants if isinstance(wants, Wants) else None

    def _choose(self, place: Place) -> None:
        if self._wants is None or self.snapshot is None:
            return
        self._wants.memory_place = place
        self._wants.changed.set()
        self.query_one(PlacesMap).show(self.snapshot.memory, place)

    def _components(self, snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
        return components_table(_view(snapshot), width, height, signs, largest_first=self.largest_first)


def _view(snapshot: Snapshot | None) -> MemoryView:
    return snapshot.memory_view if snapshot is not None and snapshot.memory_view is not None else MemoryView()


def _place(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    return [place_line(_view(snapshot), len(snapshot.memory), width, signs)]


def _phases(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    return phases_table(_view(snapshot), width, height, signs)


def _notes(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    return notes(_view(snapshot), width)[:height]


def _autopsy(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    died = _view(snapshot).autopsy
    return autopsy_lines(died, width, height, signs) if died is not None else []
