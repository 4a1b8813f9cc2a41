"""The widget hands out exactly the cells of its chart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from dpo_tui.charts import widget
from dpo_tui.charts.chart import Line, Picture, draw
from dpo_tui.charts.widget import LineChart
from dpo_tui.theme import DECK

LINE = Line("train", np.arange(500), np.sin(np.arange(500) / 40))


class ChartApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.register_theme(DECK)
        self.theme = DECK.name

    def compose(self) -> ComposeResult:
        yield LineChart("loss")


async def test_strips_hold_the_cells_of_the_chart_cropped_or_whole() -> None:
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        chart = app.query_one(LineChart)
        chart.show([LINE])
        await pilot.pause()
        expected = draw([LINE], 60, 12, title="loss").rows()
        whole = chart.render_lines(Region(0, 0, 60, 12))
        part = chart.render_lines(Region(5, 3, 20, 4))
        assert [strip.text for strip in whole] == expected
        assert [strip.text for strip in part] == [row[5:25] for row in expected[3:7]]
        await pilot.resize_terminal(30, 6)
        assert [strip.text for strip in chart.render_lines(Region(0, 0, 30, 6))] == draw(
            [LINE], 30, 6, title="loss"
        ).rows()


async def test_the_same_lines_are_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0

    def counted(*args: Any, **options: Any) -> Picture:
        nonlocal drawn
        drawn += 1
        return draw(*args, **options)

    monkeypatch.setattr(widget, "draw", counted)
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        chart = app.query_one(LineChart)
        chart.render_lines(Region(0, 0, 60, 12))
        drawn = 0
        for lines, steps in (((LINE,), None), ((LINE,), None), ((LINE,), (0, 50)), ((LINE, LINE), (0, 50))):
            chart.show(lines, steps)
            await pilot.pause()
            chart.render_lines(Region(0, 0, 60, 12))
    assert drawn == 3


async def test_colours_follow_the_theme_and_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        chart = app.query_one(LineChart)
        chart.show([LINE])
        await pilot.pause()
        for strip in chart.render_lines(Region(0, 0, 60, 12)):
            for _, style, _ in strip:
                assert style is not None
                colour = style.color.triplet if style.color is not None else None
                assert colour is None or colour.red == colour.green == colour.blue
