"""A run as one line of a list, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from textual.content import Content

from dpo_telemetry.events import SEVERITIES
from dpo_telemetry.figures import duration, number
from dpo_telemetry.text import printable
from dpo_tui.headless.sparkline import NOT_FINITE, sparkline
from dpo_tui.panels.alerts import STYLES
from dpo_tui.panels.header import STATE_STYLES
from dpo_tui.signs import Signs
from dpo_tui.views.runs import LOSSES, RunRow

ColumnName = Literal["state", "run", "done", "loss", "curve", "age", "step", "alerts", "host", "why"]

GAP = "  "
MIN_NAME, MAX_NAME = 14, 60
USUAL_NAME = 24
"""Date, time and profile: what runs are told apart by, where the terminal is not narrow."""
NARROW = 60
MAX_HOST = 24
MIN_CURVE = 12
MIN_WHY = 20

BY_IMPORTANCE: tuple[ColumnName, ...] = ("done", "loss", "curve", "alerts", "age", "step", "host")
IN_ORDER: tuple[ColumnName, ...] = (
    "state", "run", "done", "step", "loss", "curve", "alerts", "age", "host", "why",
)  # fmt: skip
TITLES: dict[ColumnName, str] = {name: name for name in IN_ORDER} | {"curve": "loss so far"}
TO_THE_RIGHT: tuple[ColumnName, ...] = ("done", "step", "loss", "age")


@dataclass(frozen=True, slots=True)
class Column:
    """A column and its width in cells."""

    name: ColumnName
    width: int


def columns_for(rows: Sequence[RunRow], width: int, signs: Signs, now_s: float) -> tuple[Column, ...]:
    """The most important columns that fit `width`, with the room that is left given to name and curve."""
    needs: dict[ColumnName, int] = {name: len(TITLES[name]) for name in IN_ORDER}
    for row in rows:
        for name in ("state", "run", "done", "loss", "age", "alerts", "step", "host"):
            needs[name] = max(needs[name], _cell(row, name, signs, now_s, 0).cell_length)
    natural = min(needs["run"], MAX_NAME)
    least = MIN_NAME if width < NARROW else USUAL_NAME
    needs |= {"run": min(natural, least), "curve": MIN_CURVE, "host": min(needs["host"], MAX_HOST)}
    chosen: set[ColumnName] = {"state", "run"}
    left = width - needs["state"] - len(GAP) - needs["run"]
    for name in BY_IMPORTANCE:
        if left < needs[name] + len(GAP):
            break
        left -= needs[name] + len(GAP)
        chosen.add(name)
    more = min(left, natural - needs["run"])
    needs["run"], left = needs["run"] + max(0, more), left - max(0, more)
    if "curve" in chosen:
        more = max(0, min(left, LOSSES - MIN_CURVE))
        needs["curve"], left = needs["curve"] + more, left - more
    if left >= MIN_WHY + len(GAP):
        chosen.add("why")
        needs["why"] = left - len(GAP)
    return tuple(Column(name, needs[name]) for name in IN_ORDER if name in chosen)


def titles(columns: Sequence[Column]) -> Content:
    """The line above the list."""
    cells = [_fitted(Content(TITLES[column.name]), column) for column in columns]
    return Content(GAP).join(cells).stylize("$muted")


def run_line(row: RunRow, columns: Sequence[Column], signs: Signs, now_s: float) -> Content:
    """One run."""
    cells = []
    for column in columns:
        cell = _cell(row, column.name, signs, now_s, column.width)
        cells.append(_fitted(cell, column))
    return Content(GAP).join(cells)


def about(row: RunRow, here: Path) -> Content:
    """Where it lies, as seen from the folder `here`, and why it stands as it does."""
    path = row.run.path
    reason = printable(row.reason)
    style = STATE_STYLES.get(row.state, "$muted") if row.state != "damaged" else "$error"
    parts: list[str | tuple[str, str]] = [(f"{reason}  ", style)] if reason else []
    shown = printable(str(path.relative_to(here) if path.is_relative_to(here) else path))
    return Content.assemble(*parts, (shown, "$muted"))


def _fitted(cell: Content, column: Column) -> Content:
    cell = cell.truncate(column.width, ellipsis=True)
    padding = Content(" " * (column.width - cell.cell_length))
    return padding + cell if column.name in TO_THE_RIGHT else cell + padding


def _cell(row: RunRow, name: ColumnName, signs: Signs, now_s: float, width: int) -> Content:
    match name:
        case "state":
            style = "$error" if row.state == "damaged" else STATE_STYLES.get(row.state, "$primary")
            sign = signs.critical if row.state == "damaged" else signs.state
            return Content.styled(f"{sign} {row.state}", f"bold {style}" if row.live else style)
        case "run":
            return Content.styled(printable(row.name), "bold" if row.live else "")
        case "done":
            return Content("" if row.share is None else f"{row.share:.0%}")
        case "step":
            return Content(f"{row.step}" + (f"/{row.max_steps}" if row.max_steps else ""))
        case "loss":
            return Content("" if row.loss is None else number(row.loss))
        case "curve":
            return _curve(row, width)
        case "alerts":
            return _alerts(row)
        case "age":
            return Content.styled(duration(now_s - row.created_s) if row.created_s else "", "$muted")
        case "host":
            return Content.styled(printable(row.host), "$muted")
        case "why":
            return Content.styled(printable(row.reason), "$muted")


def _curve(row: RunRow, width: int) -> Content:
    drawn = sparkline(np.array(row.losses), width)
    return Content.assemble(*((sign, "$error" if sign == NOT_FINITE else "$chart-train") for sign in drawn))


def _alerts(row: RunRow) -> Content:
    """The gravest severity and its count; a run that nobody judged says nothing."""
    for severity in reversed(SEVERITIES):
        if row.alerts and (count := row.alerts.get(severity, 0)) and severity != "info":
            return Content.styled(f"{count} {severity}", STYLES[severity])
    return Content("")
