"""The keys of the metrics screen, and what its help says of them."""

from __future__ import annotations

from textual.binding import Binding, BindingType

ZOOM = 0.5
"""What a key press leaves of the width in sight."""
PAN = 0.125
"""Share of the width that a key press moves by."""

KEYS: list[BindingType] = [
    Binding("slash", "filter", "Filter", key_display="/"),
    Binding("s", "smooth", "Smooth"),
    Binding("l", "log", "Log"),
    Binding("x", "axis", "X axis"),
    Binding("enter", "full", "Full"),
    Binding("f", "follow", "Follow"),
    Binding("n", "nonfinite(True)", "Next NaN"),
    Binding("N", "nonfinite(False)", show=False),
    Binding("plus,equals_sign", f"zoom({ZOOM})", show=False),
    Binding("minus", f"zoom({1 / ZOOM})", show=False),
    Binding("0", "everything", show=False),
    Binding("left", f"pan({-PAN})", show=False),
    Binding("right", f"pan({PAN})", show=False),
    Binding("comma,shift+left", "point(-1)", show=False),
    Binding("full_stop,shift+right", "point(1)", show=False),
    Binding("less_than_sign", "point_step(-1)", show=False),
    Binding("greater_than_sign", "point_step(1)", show=False),
    Binding("tab", "select(1)", show=False),
    Binding("shift+tab", "select(-1)", show=False),
    Binding("down", "select_row(1)", show=False),
    Binding("up", "select_row(-1)", show=False),
    Binding("pagedown", "page(1)", show=False),
    Binding("pageup", "page(-1)", show=False),
    Binding("escape", "back", "Back", show=False),
]

HELP = """
/: filter the charts by text or regular expression; enter keeps it, escape drops it
s: smooth, five strengths (EMA); the values stay under the line, faintly
l: logarithmic values; a chart without a positive value stays linear, one not positive is a mark below
x: the x axis by step, time, epoch or tokens, as far as the run has them
+ - wheel: zoom at the pointer; 0 shows everything
left right drag: pan
, . hover: point at a step in every chart; < > go one logged step
n N: next and previous value that is not finite
tab up down click: select a chart; page up and down turn the page
enter: the selected chart, full size; escape goes back
f: follow the newest step, or stand still
grey line: values that a newer attempt replaced; a vertical rule stands where an attempt began
"""
