"""The charts of the overview: as many as the room allows, the most important first."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Grid
from textual.geometry import Size

from dpo_tui.charts.widget import LineChart
from dpo_tui.signs import Signs
from dpo_tui.snapshot import CHARTS, Charts

ALWAYS = 4
"""Charts that are shown without data too: it is worth knowing that there is none."""
SMALLEST = Size(28, 4)
SMALLEST_OF_MANY = Size(40, 10)
"""A chart beyond the first `ALWAYS` takes no room from them below this size."""


def chart_id(title: str) -> str:
    """Id of the chart's widget."""
    return f"chart-{title.replace(' ', '-')}"


class ChartGrid(Grid):
    """Hands lines to its charts and arranges them for its size."""

    def __init__(self, signs: Signs, id: str) -> None:
        super().__init__(id=id)
        self._charts = [LineChart(title, glyphs=signs.charts, id=chart_id(title)) for title in CHARTS]
        self._shown: Charts | None = None
        self._arranged: tuple[Size, tuple[str, ...]] | None = None

    def compose(self) -> ComposeResult:
        """All of them; those without room are hidden."""
        yield from self._charts

    def on_resize(self) -> None:
        """Another size holds other charts."""
        self._arrange()

    def show(self, charts: Charts) -> None:
        """Draw these; charts that did not change are left alone."""
        if charts is self._shown:
            return
        self._shown = charts
        self._arrange()
        steps = common_range(charts)
        for chart in self._charts:
            if chart.display:
                chart.show(charts.get(chart.title, ()), steps)

    def _arrange(self) -> None:
        found = self._shown or {}
        titles = tuple(title for at, title in enumerate(CHARTS) if at < ALWAYS or _has_first(title, found))
        if self._arranged == (self.size, titles) or not self.size:
            return
        self._arranged = self.size, titles
        columns, rows = shape(self.size, len(titles))
        self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        shown = titles[: columns * rows]
        # The first chart takes what the last row leaves.
        self._charts[0].styles.column_span = 1 + -len(shown) % columns
        steps = common_range(found)
        for chart in self._charts:
            hidden, chart.display = not chart.display, chart.title in shown
            if chart.display and hidden and chart.title in found:
                chart.show(found[chart.title], steps)


def _has_first(title: str, charts: Charts) -> bool:
    """Whether the line that a chart is named for has data."""
    name = CHARTS[title][0][0]
    return any(line.name == name and len(line.steps) for line in charts.get(title, ()))


def shape(size: Size, count: int) -> tuple[int, int]:
    """Columns and rows of a grid for up to `count` charts in `size`."""
    columns = max(1, min(2, size.width // SMALLEST.width))
    rows = max(1, min(ALWAYS // columns, size.height // SMALLEST.height))
    wide, high = size.width // SMALLEST_OF_MANY.width, size.height // SMALLEST_OF_MANY.height
    if columns * rows < ALWAYS or wide * high <= ALWAYS:
        return columns, rows
    count = min(count, wide * high)
    columns = min(wide, max(2, round((count * size.width / size.height / 3) ** 0.5)))
    rows = min(high, -(-count // columns))
    return columns, rows


def common_range(charts: Charts) -> tuple[int, int] | None:
    """First and last step of all lines, so that the charts of a screen share their step axis."""
    ends = [
        (int(line.steps[0]), int(line.steps[-1]))
        for lines in charts.values()
        for line in lines
        if len(line.steps)
    ]
    return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None
