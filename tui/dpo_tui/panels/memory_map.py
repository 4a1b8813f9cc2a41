"""All GPUs at once: a cell each, grouped by host, as high and as bright as it is full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from textual.content import Content

from dpo_telemetry.figures import size
from dpo_telemetry.text import printable
from dpo_tui.panels.memory_bar import NEARLY_FULL, OVER_PLAN
from dpo_tui.signs import Signs
from dpo_tui.views.memory_rows import MemoryRow, Place

LABEL_WIDTH = 5
"""Of the number of the first rank in a line."""
HALF_FULL, BUSY = 0.5, 0.85
NAMED = 3
"""The fullest that are named."""


@dataclass(frozen=True, slots=True)
class Map:
    """Lines, and what each cell of them stands for."""

    lines: list[Content]
    places: Mapping[tuple[int, int], Place]
    """By column and line."""
    together: int = 1
    """The most GPUs that a cell stands for; it shows the fullest of them."""


def name_of(row: MemoryRow) -> str:
    """A rank with its card, or a card."""
    card = f"{printable(row.host)}:{row.gpu_index}" if row.gpu_index is not None else printable(row.host)
    if row.rank is None:
        return f"card {card}"
    return f"rank {row.rank} ({card})" if card else f"rank {row.rank}"


def basis(rows: Sequence[MemoryRow]) -> str:
    """What 100 % is."""
    if any(row.capacity_bytes for row in rows):
        return "the card"
    return "the plan" if any(row.planned_bytes for row in rows) else ""


def cell(row: MemoryRow, signs: Signs) -> tuple[str, str]:
    """Character and style of one GPU; they say the same."""
    share = row.share
    if share is None:
        return "?", "$muted"
    if not row.capacity_bytes and share > OVER_PLAN:
        return signs.warning, "bold $warning"
    sign = signs.levels[max(0, min(len(signs.levels) - 1, int(share * len(signs.levels))))]
    if row.capacity_bytes and share >= NEARLY_FULL:
        return signs.critical, "bold $error"
    if row.capacity_bytes and share >= BUSY:
        return sign, "$warning"
    return sign, "$muted" if share < HALF_FULL else "$primary"


def heat_map(
    rows: Sequence[MemoryRow], width: int, height: int, signs: Signs, chosen: Place | None = None
) -> Map:
    """All rows in at most `height` lines of `width` columns: hosts apart, else joined, else put together."""
    hosts = [list(group) for _, group in groupby(rows, key=lambda row: row.host)]
    room = max(1, width - LABEL_WIDTH)
    largest = max((len(host) for host in hosts), default=1)
    apart = max(1, (room + 1) // (largest + 1))
    if largest <= room and -(-len(hosts) // apart) <= height:
        parts = [[[row] for row in host] for host in hosts]
        return _drawn([parts[at : at + apart] for at in range(0, len(parts), apart)], signs, chosen, 1)
    together = 1
    joined = [[row] for row in rows]
    if len(joined) > room * height:
        joined = hosts
        together = largest
    if len(joined) > room * height:
        many = -(-len(joined) // (room * max(1, height)))
        joined = [
            [row for host in joined[at : at + many] for row in host] for at in range(0, len(joined), many)
        ]
        together = max(map(len, joined))
    lines = [[joined[at : at + room]] for at in range(0, len(joined), room)]
    return _drawn(lines, signs, chosen, together)


def _drawn(
    lines: list[list[list[list[MemoryRow]]]], signs: Signs, chosen: Place | None, together: int
) -> Map:
    """`lines` hold groups of cells, and each cell holds the rows that it stands for."""
    found: list[Content] = []
    places: dict[tuple[int, int], Place] = {}
    for at, groups in enumerate(lines):
        first = groups[0][0][0].rank
        parts: list[tuple[str, str]] = [(f"{'' if first is None else first:>{LABEL_WIDTH - 1}} ", "$muted")]
        column = LABEL_WIDTH
        for number, group in enumerate(groups):
            if number:
                parts.append((" ", ""))
                column += 1
            for rows in group:
                fullest = max(rows, key=lambda row: row.share or 0)
                sign, style = cell(fullest, signs)
                here = chosen is not None and any(row.place == chosen for row in rows)
                parts.append((sign, f"{style} reverse" if here else style))
                places[column, at] = fullest.place
                column += 1
        found.append(Content.assemble(*_joined(parts)))
    return Map(found, places, together)


def legend(rows: Sequence[MemoryRow], signs: Signs, together: int) -> Content:
    """What the cells mean."""
    levels = signs.levels
    low, high = levels[0], levels[-1]
    of = basis(rows)
    parts: list[tuple[str, str]] = [(f"{low} 0 %  ", "$muted")]
    if of == "the card":
        parts += [(f"{levels[len(levels) // 2]} 50 %  ", "$primary"), (f"{high} {BUSY:.0%}  ", "$warning")]
        parts.append((f"{signs.critical} {NEARLY_FULL:.0%}", "bold $error"))
    elif of:
        parts += [(f"{high} as planned  ", "$primary"), (f"{signs.warning} above the plan", "bold $warning")]
    if any(row.share is None for row in rows):
        parts.append(("  ? not known", "$muted"))
    if together > 1:
        parts.append((f"  a cell: the fullest of {together}", "$muted"))
    return Content.assemble(*parts)


def worst(rows: Sequence[MemoryRow], width: int) -> list[Content]:
    """The fullest by name, then the furthest above the plan, as far as there are any."""
    known = sorted((row for row in rows if row.share is not None), key=lambda row: -(row.share or 0))
    found = []
    if known:
        named = ", ".join(f"{name_of(row)} {row.share:.0%}" for row in known[:NAMED])
        found.append(Content.assemble(("fullest: ", "$muted"), named).truncate(width, ellipsis=True))
    over = [row for row in rows if row.planned_bytes and row.measured_bytes > row.planned_bytes * OVER_PLAN]
    if over:
        most = max(over, key=lambda row: row.over_plan_bytes)
        text = f"{len(over)} above the plan, most {name_of(most)} by {size(most.over_plan_bytes)}"
        found.append(Content.styled(text, "$warning").truncate(width, ellipsis=True))
    return found


def _joined(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for text, style in parts:
        if found and found[-1][1] == style:
            found[-1] = (found[-1][0] + text, style)
        else:
            found.append((text, style))
    return found
