"""CPU time of one frame of six replaced charts at 200 x 60, ours against the libraries.

    python benchmarks/charts.py [--json] [--quick] [--record]

Every chart gets new values in every frame. The peers (textual-plot, textual-plotext) are
measured where they are installed, with as many points as ours; neither downsamples.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from rich.console import RenderableType
from textual.app import App, ComposeResult
from textual.containers import Grid
from textual.screen import Screen
from textual.widget import Widget

import harness
from dpo_tui.charts.chart import Line
from dpo_tui.charts.wall import ChartWall, Tile, View
from dpo_tui.charts.widget import LineChart
from dpo_tui.theme import DECK

SIZE = (200, 60)
CHARTS = 6
GOALS_MS = {10_000: 10.0, 1_000_000: 20.0}

Make = Callable[[int], Widget]
Show = Callable[[Widget, "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"], None]


class Bench(App[None]):
    """Six charts in a grid that fills the screen."""

    CSS = "Grid { grid-size: 3 2; } Grid > * { width: 1fr; height: 1fr; }"

    def __init__(self, make: Make, count: int = CHARTS) -> None:
        super().__init__()
        self.make = make
        self.count = count
        self.register_theme(DECK)
        self.theme = DECK.name
        self.shown = asyncio.Event()

    def compose(self) -> ComposeResult:
        """Six charts."""
        with Grid():
            for index in range(self.count):
                yield self.make(index)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        super()._display(screen, renderable)
        self.shown.set()


def our_chart(index: int) -> Widget:
    """A Braille chart of ours."""
    return LineChart(f"chart {index}")


def show_ours(widget: Widget, steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> None:
    """Replace the values of one of ours."""
    assert isinstance(widget, LineChart)
    widget.show([Line("train", steps, values)])


class Wall(ChartWall):
    """All six charts in the one widget of the metrics screen."""

    DEFAULT_CSS = "Wall { column-span: 3; row-span: 2; }"


async def wall_ms(points: int, frames: int) -> float:
    """Median CPU milliseconds of a frame of the metrics screen's widget, whose charts all change."""
    app = Bench(lambda index: Wall(), count=1)
    steps = np.arange(points, dtype=np.int64)
    rng = np.random.default_rng(0)
    series = [rng.normal(size=points).cumsum() for _ in range(CHARTS)]
    costs = []
    async with app.run_test(size=SIZE) as pilot:
        wall = app.query_one(Wall)
        for frame in range(frames + 3):
            values = [data + frame * (-1) ** frame for data in series]
            await pilot.pause()
            app.shown.clear()
            began = time.process_time()
            tiles = [
                Tile(f"chart {index}", (Line("train", steps, data),)) for index, data in enumerate(values)
            ]
            wall.show(tiles, View((0, points - 1)), (3, 2))
            await app.shown.wait()
            costs.append((time.process_time() - began) * 1000)
    return median(costs[3:])


def textual_plot_peer() -> tuple[Make, Show]:
    """textual-plot's widget in its Braille mode."""
    plot = importlib.import_module("textual_plot")

    def show(widget: Any, steps: Any, values: Any) -> None:
        widget.clear()
        widget.plot(steps, values, hires_mode=plot.HiResMode.BRAILLE)

    return (lambda index: plot.PlotWidget()), show


def textual_plotext_peer() -> tuple[Make, Show]:
    """textual-plotext's widget with Braille markers."""
    plotext = importlib.import_module("textual_plotext")

    def show(widget: Any, steps: Any, values: Any) -> None:
        widget.plt.clear_data()
        widget.plt.plot(steps.tolist(), values.tolist(), marker="braille")
        widget.refresh()

    return (lambda index: plotext.PlotextPlot()), show


PEERS = {"textual-plot": textual_plot_peer, "textual-plotext": textual_plotext_peer}


async def frame_ms(make: Make, show: Show, points: int, frames: int) -> float:
    """Median CPU milliseconds of a frame, from handing over the values to the next drawn screen."""
    app = Bench(make)
    rng = np.random.default_rng(0)
    steps = np.arange(points, dtype=np.int64)
    series = [rng.normal(size=points).cumsum() for _ in range(CHARTS)]
    costs = []
    async with app.run_test(size=SIZE) as pilot:
        charts = list(app.query_one(Grid).children)
        for frame in range(frames + 3):
            values = [data + frame for data in series]
            await pilot.pause()
            app.shown.clear()
            began = time.process_time()
            for widget, data in zip(charts, values, strict=True):
                show(widget, steps, data)
            await app.shown.wait()
            costs.append((time.process_time() - began) * 1000)
    return median(costs[3:])


def measure(quick: bool) -> dict[str, harness.Figure]:
    """All figures in one run, so that they share a machine and a moment."""
    frames = 10 if quick else 40
    figures: dict[str, harness.Figure] = {}
    installed = [name for name in PEERS if importlib.util.find_spec(name.replace("-", "_"))]
    for points, goal in GOALS_MS.items():
        value = asyncio.run(frame_ms(our_chart, show_ours, points, frames))
        peers: dict[str, float] = {}
        if points == min(GOALS_MS):
            for name in installed:
                make, show = PEERS[name]()
                peers[name] = round(asyncio.run(frame_ms(make, show, points, max(3, frames // 5))), 1)
        figures[f"six_charts_{points}_points_ms"] = {"value": round(value, 2), "goal": goal, "peer": peers}
        wall = asyncio.run(wall_ms(points, frames))
        figures[f"wall_of_six_charts_{points}_points_ms"] = {
            "value": round(wall, 2),
            "goal": goal,
            "peer": {},
        }
    return figures


if __name__ == "__main__":
    harness.main("charts", measure, ("textual", "rich", "numpy", *PEERS))
