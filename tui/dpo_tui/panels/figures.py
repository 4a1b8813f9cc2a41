"""The figures of a run in two lines, for a terminal too small for charts."""

from __future__ import annotations

from textual.content import Content

from dpo_telemetry.figures import number
from dpo_telemetry.text import printable
from dpo_tui.panels.alerts import STYLES, shown_groups
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot


def figures(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """Last margin and accuracy, and the gravest cause."""
    charts = snapshot.charts or {}
    parts: list[str | tuple[str, str]] = []
    for title, name in (("margins", "margin"), ("accuracies", "accuracy")):
        lines = [line for line in charts.get(title, ()) if len(line.values)]
        value = number(float(lines[0].values[-1]), 3) if lines else "n/a"
        parts += [(f"{name} ", "$muted"), (f"{value}  ", "bold")]
    first = Content.assemble(*parts)
    found = [group for group in shown_groups(snapshot) if not group.muted]
    if not found:
        return [first, Content.styled("no alerts", "$muted")]
    worst = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    style = "$muted" if worst.seen else STYLES[worst.severity]
    text = f"{worst.severity}: {printable(worst.title)}{more}"
    return [first, Content.styled(text, style).truncate(width, ellipsis=True)]
