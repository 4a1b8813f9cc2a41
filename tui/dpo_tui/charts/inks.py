"""The colour of each ink, from the theme."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.widget import Widget

from dpo_tui.charts.picture import Ink

COMPONENTS = {ink: f"line-chart--{ink.name.lower().replace('_', '-')}" for ink in Ink}
"""Component class of each ink, for the style sheet."""

_COLOURS = {
    Ink.BLANK: "$foreground",
    Ink.TITLE: "$foreground; text-style: bold",
    Ink.LABEL: "$chart-label",
    Ink.GRID: "$chart-grid",
    Ink.NONFINITE: "$chart-nonfinite; text-style: bold",
    Ink.TRAIN: "$chart-train",
    Ink.EVAL: "$chart-eval",
    Ink.CHOSEN: "$chart-chosen",
    Ink.REJECTED: "$chart-rejected",
    Ink.TRAIN_RAW: "$chart-train 35%",
    Ink.CHOSEN_RAW: "$chart-chosen 35%",
    Ink.REJECTED_RAW: "$chart-rejected 35%",
    Ink.SUPERSEDED: "$muted 75%",
    Ink.RULE: "$muted",
    Ink.CROSS: "$accent",
    Ink.SELECTED: "$accent; text-style: bold",
}

INK_CSS = "\n".join(f"& > .{COMPONENTS[ink]} {{ color: {colour}; }}" for ink, colour in _COLOURS.items())
"""Rules for the style sheet of a widget that has these component classes."""


def ink_styles(widget: Widget) -> list[Style]:
    """Style of each ink, the line filters (monochrome, dimming) applied."""
    return [_ink_style(widget, component) for component in COMPONENTS.values()]


def _ink_style(widget: Widget, component: str) -> Style:
    segments = [Segment("x", widget.get_component_rich_style(component))]
    for line_filter in widget.get_line_filters():
        segments = line_filter.apply(segments, widget.background_colors[1])
    return segments[0].style or Style.null()
