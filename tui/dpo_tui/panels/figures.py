"""The figures of a run in two lines, for a terminal too small for charts."""

from __future__ import annotations

from textual.content import Content

from dpo_telemetry.figures import number
from dpo_tui.panels.alerts import STYLES
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot


def figures(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """Last margin and accuracy, and the gravest alert."""
    charts = snapshot.charts or {}
    parts: list[str | tuple[str, str]] = []
    for title, name in (("margins", "margin"), ("accuracies", "accuracy")):
        lines = [line for line in charts.get(title, ()) if len(line.values)]
        value = number(float(lines[0].values[-1]), 3) if lines else "n/a"
        parts += [(f"{name} ", "$muted"), (f"{value}  ", "bold")]
    first = Content.assemble(*parts)
    if not snapshot.alerts:
        return [first, Content.styled("no alerts", "$muted")]
    alert = snapshot.alerts[0]
    style = STYLES[alert.severity]
    more = f" and {len(snapshot.alerts) - 1} more" if len(snapshot.alerts) > 1 else ""
    return [
        first,
        Content.styled(f"{alert.severity}: {alert.code}{more}", style).truncate(width, ellipsis=True),
    ]
