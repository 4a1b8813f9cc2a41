"""Is it learning, is anything wrong, does it fit, when will it be done."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical

from dpo_tui.charts.widget import LineChart
from dpo_tui.panels.alerts import alerts
from dpo_tui.panels.answers import answers
from dpo_tui.panels.figures import figures
from dpo_tui.panels.log import log
from dpo_tui.panels.memory import memory
from dpo_tui.panels.panel import Panel
from dpo_tui.panels.progress import progress
from dpo_tui.screens.chart_grid import ChartGrid
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import Signs
from dpo_tui.snapshot import CHARTS, Snapshot
from dpo_tui.wants import ScreenName

ANSWERED_ON: tuple[ScreenName, ...] = ("metrics", "alerts", "memory", "timeline")
"""Where each of the four answers is explained."""
BEHIND: dict[str, ScreenName] = {"memory": "memory", "alerts": "alerts", "log": "logs", "figures": "alerts"}
"""Panel to the screen that shows more of it."""


class OverviewScreen(RunScreen):
    """Answers, charts, memory, alerts and the log, arranged for the size of the terminal."""

    NAME: ClassVar[ScreenName] = "overview"
    HELP: ClassVar[str] = """
        first line: is it learning, is anything wrong, does it fit, when will it be done
        second: steps made, time left and the clock time of the end
        third: step time, tokens and pairs a second, cost; or the phase that the run is in
        click: a chart, a panel or an answer opens the screen that shows more of it
    """
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
        #answers { height: 1; padding: 0 1; }
        #progress { height: 2; padding: 0 1; }
        #body { height: 1fr; layout: vertical; }
        #charts { height: 1fr; grid-gutter: 0 2; margin: 0 1; }
        #side { height: 6; layout: horizontal; padding: 0 1; }
        #side > Panel { width: 1fr; height: 1fr; }
        #memory { margin: 0 2 0 0; }
        #log { display: none; padding: 0 1; }
        #figures { display: none; height: 2; padding: 0 1; }
    }
    OverviewScreen.-tall {
        #answers { height: 3; padding: 1 1 0 1; }
        #progress { height: 3; padding: 1 1 0 1; }
        #charts { grid-gutter: 1 2; margin: 1 1 0 1; }
        #side { height: 9; padding: 1 1 0 1; }
        #log { display: block; height: 6; padding: 1 1 0 1; }
    }
    OverviewScreen.-wide.-tall {
        #body { layout: horizontal; }
        #charts { width: 2fr; }
        #side { width: 1fr; min-width: 42; height: 1fr; layout: vertical; padding: 1 1 0 1; }
        #side > Panel { width: 1fr; height: 1fr; }
        #side > #memory { height: auto; max-height: 50%; margin: 0 0 1 0; }
    }
    OverviewScreen.-narrow, OverviewScreen.-short {
        #progress { height: 1; padding: 0 1; }
        #answers, #side, #log { display: none; }
        #figures { display: block; }
    }
    """

    def __init__(self, signs: Signs) -> None:
        super().__init__(signs)
        self._charts = ChartGrid(signs, "charts")

    def compose_body(self) -> ComposeResult:
        """The answers, progress, what is learned, what it costs, what is wrong, what was said."""
        yield Panel(answers, signs=self.signs, id="answers")
        yield Panel(progress, signs=self.signs, id="progress")
        with Vertical(id="body"):
            yield self._charts
            with Vertical(id="side"):
                yield Panel(memory, signs=self.signs, id="memory")
                yield Panel(alerts, signs=self.signs, id="alerts")
        yield Panel(figures, signs=self.signs, id="figures")
        yield Panel(log, signs=self.signs, id="log")

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        super().show(snapshot)
        if snapshot.charts is not None:
            self._charts.show(snapshot.charts)

    async def on_click(self, event: events.Click) -> None:
        """Show more of what was clicked."""
        widget = event.widget
        if isinstance(widget, LineChart):
            known = self.snapshot.metric_names if self.snapshot is not None else ()
            metric = next((metric for _, metric, _ in CHARTS[widget.title] if metric in known), None)
            await self.app.run_action(f"app.jump({metric!r})" if metric else "app.show('metrics')")
        elif widget is not None and widget.id == "answers":
            at = min(len(ANSWERED_ON) - 1, event.x * len(ANSWERED_ON) // max(1, widget.size.width))
            await self.app.run_action(f"app.show('{ANSWERED_ON[at]}')")
        elif widget is not None and widget.id in BEHIND:
            await self.app.run_action(f"app.show('{BEHIND[widget.id]}')")
