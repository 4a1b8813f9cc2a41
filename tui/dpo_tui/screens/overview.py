"""Is it learning, is anything wrong, does it fit, when will it be done."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Grid, Vertical
from textual.widgets import Footer

from dpo_tui.charts.widget import LineChart
from dpo_tui.panels.alerts import alerts
from dpo_tui.panels.figures import figures
from dpo_tui.panels.header import header, progress
from dpo_tui.panels.log import log
from dpo_tui.panels.memory import memory
from dpo_tui.panels.panel import Panel
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.snapshot import CHARTS, Charts, Snapshot


class OverviewScreen(RunScreen):
    """Charts, memory, alerts and the log, arranged for the size of the terminal."""

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - Textual reads it from the class
        (0, "-narrow"),
        (60, "-normal"),
        (110, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 - the same
        (0, "-short"),
        (18, "-low"),
        (30, "-tall"),
    ]

    DEFAULT_CSS = """
    OverviewScreen {
        layout: vertical;
        overflow: hidden;
        #header { height: 1; padding: 0 1; background: $surface; }
        #progress { height: 1; padding: 0 1; }
        #body { height: 1fr; layout: vertical; }
        #charts { height: 1fr; grid-size: 2 2; grid-gutter: 0 2; padding: 0 1; }
        #side { height: 5; layout: horizontal; padding: 0 1; }
        #side > Panel { width: 1fr; height: 1fr; }
        #memory { margin: 0 2 0 0; }
        #log { height: 4; padding: 0 1; }
        #figures { display: none; height: 2; padding: 0 1; }
    }
    OverviewScreen.-tall {
        #progress { height: 2; padding: 1 1 0 1; }
        #charts { grid-gutter: 1 2; padding: 1 1 0 1; }
        #side { height: 9; padding: 1 1 0 1; }
        #log { height: 10; padding: 1 1 0 1; }
    }
    OverviewScreen.-wide.-tall {
        #body { layout: horizontal; }
        #charts { width: 2fr; }
        #side { width: 1fr; min-width: 42; height: 1fr; layout: vertical; padding: 1 1 0 1; }
        #side > Panel { width: 1fr; height: 1fr; }
        #side > #memory { height: auto; max-height: 50%; margin: 0 0 1 0; }
    }
    OverviewScreen.-narrow, OverviewScreen.-short {
        #charts { grid-size: 1 1; }
        #charts > * { display: none; }
        #charts > #chart-loss { display: block; }
        #side, #log { display: none; }
        #figures { display: block; }
    }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__(signs)
        self._shown: Charts | None = None

    def compose(self) -> ComposeResult:
        """State first, then what is learned, what it costs, what is wrong, what was said."""
        yield Panel(header, signs=self.signs, id="header")
        yield Panel(progress, signs=self.signs, id="progress")
        with Vertical(id="body"):
            with Grid(id="charts"):
                for title in CHARTS:
                    yield LineChart(title, glyphs=self.signs.charts, id=f"chart-{title}")
            with Vertical(id="side"):
                yield Panel(memory, signs=self.signs, id="memory")
                yield Panel(alerts, signs=self.signs, id="alerts")
        yield Panel(figures, signs=self.signs, id="figures")
        yield Panel(log, signs=self.signs, id="log")
        yield Footer(show_command_palette=False)

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; charts that did not change are left alone."""
        super().show(snapshot)
        if snapshot.charts is None or snapshot.charts is self._shown:
            return
        self._shown = snapshot.charts
        steps = common_range(snapshot.charts)
        for title, lines in snapshot.charts.items():
            self.query_one(f"#chart-{title}", LineChart).show(lines, steps)


def common_range(charts: Charts) -> tuple[int, int] | None:
    """First and last step of all lines, so that the charts of a screen share their step axis."""
    ends = [
        (int(line.steps[0]), int(line.steps[-1]))
        for lines in charts.values()
        for line in lines
        if len(line.steps)
    ]
    return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None
