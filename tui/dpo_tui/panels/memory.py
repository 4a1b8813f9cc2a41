"""Memory of all ranks and cards: bars for a few, small bars for some, a map for many."""

from __future__ import annotations

from textual.content import Content

from dpo_telemetry.figures import size
from dpo_telemetry.text import printable
from dpo_tui.panels import memory_map
from dpo_tui.panels.memory_bar import bar, judge, legend, ruler
from dpo_tui.panels.panel import heading
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.memory_rows import MemoryRow

MOST_WITH_RULER, MOST_TALL, MOST_FLAT, MOST_SMALL = 4, 8, 16, 64
"""Rows up to which there are three lines a rank, two, one, and a small bar, where they fit."""
NARROWEST_FLAT = 34
SMALL_BAR = 8
SMALL_WIDTH = 5 + SMALL_BAR + 5
GUTTER = 2


_drawn: dict[tuple[int, int], tuple[tuple[MemoryRow, ...], Signs, list[Content]]] = {}
"""Of the newest rows: a thousand cards take tens of milliseconds, and a frame asks more than once."""
MAX_DRAWN = 16


def memory(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """A heading, the ranks as the room allows, then the legend where there is room."""
    rows = snapshot.memory
    if not rows:
        said = "waiting for the first measurement" if not snapshot.status.ended else "nothing was measured"
        return [heading("memory", Content(""), width), Content.styled(said, "$muted")]
    known = _drawn.get((width, height))
    if known is None or known[0] is not rows or known[1] is not signs:
        if len(_drawn) >= MAX_DRAWN:
            _drawn.clear()
        known = _drawn[width, height] = (rows, signs, _lines(rows, width, height, signs))
    return known[2]


def _lines(rows: tuple[MemoryRow, ...], width: int, height: int, signs: Signs) -> list[Content]:
    room = height - 1
    count = len(rows)
    if 3 * count <= room and count <= MOST_WITH_RULER and any(row.planned_peaks for row in rows):
        lines = [line for row in rows for line in _tall(row, width, signs, with_ruler=True)]
    elif 2 * count <= room and count <= MOST_TALL:
        lines = [line for row in rows for line in _tall(row, width, signs, with_ruler=False)]
    elif count <= room and count <= MOST_FLAT and width >= NARROWEST_FLAT:
        lines = [_flat(row, width, signs) for row in rows]
    elif count <= room * _columns(width) and count <= MOST_SMALL and width >= SMALL_WIDTH:
        return [_heading(rows, width, signs, share=True), *_small(rows, width, signs)]
    else:
        return [_heading(rows, width, signs, share=True), *_map(rows, width, room, signs)][:height]
    lines.insert(0, _heading(rows, width, signs))
    left = height - len(lines)
    legends = (legend(rows, width, signs, sizes=sizes) for sizes in (True, False))
    return lines + next((found for found in legends if len(found) <= left), [])


def _heading(rows: tuple[MemoryRow, ...], width: int, signs: Signs, *, share: bool = False) -> Content:
    """What the marks mean, or of what the shares are."""
    if share:
        of = memory_map.basis(rows)
        what = f"{len(rows)} GPUs" if any(row.capacity_bytes for row in rows) else f"{len(rows)} ranks"
        return heading("memory", Content.styled(f"{what}, share of {of}" if of else what, "$muted"), width)
    parts = [f"plan {signs.mark}"] if any(row.planned_bytes or row.planned_peaks for row in rows) else []
    if any(row.planned_nvml_bytes for row in rows):
        parts.append(f"NVML {signs.interval}")
    if any(row.capacity_bytes for row in rows):
        parts.append("full width: the card")
    text = "  ".join(parts) if parts else "no plan"
    return heading("memory", Content.styled(text, "$muted"), width)


def _tall(row: MemoryRow, width: int, signs: Signs, *, with_ruler: bool) -> list[Content]:
    lines = [_figures(row, width, signs), bar(row, width, signs)]
    return [*lines, ruler(row, width, signs)] if with_ruler else lines


def _flat(row: MemoryRow, width: int, signs: Signs) -> Content:
    text = _figures(row, width // 2, signs)
    return Content.assemble(text, " ", bar(row, max(0, width - text.cell_length - 1), signs))


def _figures(row: MemoryRow, width: int, signs: Signs) -> Content:
    judged = judge(row, signs)
    parts: list[str | tuple[str, str]] = []
    extras = []
    of = f" of {size(row.capacity_bytes)}" if row.capacity_bytes else ""
    if row.rank is None:
        parts += [
            (f"{printable(row.host)} gpu {row.gpu_index}  ", "$muted"),
            (size(row.gpu_used_bytes), judged.style),
        ]
        parts += [(judged.sign, judged.style), (of, "$muted")]
        extras.append("  none of our ranks seen on it")
    else:
        parts += [(f"rank {row.rank}  ", "$muted"), (size(row.measured_bytes), judged.style)]
        parts.append((judged.sign, judged.style))
        if row.planned_bytes:
            parts.append((f" of {size(row.planned_bytes)} planned", "$muted"))
        if row.gpu_used_bytes is not None:
            extras.append(f"  card {size(row.gpu_used_bytes)}{of}")
        elif row.rss_bytes is not None:
            extras.append(f"  RSS {size(row.rss_bytes)}")
    content = Content.assemble(*parts)
    for extra in extras:
        if content.cell_length + len(extra) <= width:
            content = Content.assemble(content, (extra, "$muted"))
    return content.truncate(width, ellipsis=True)


def _columns(width: int) -> int:
    return max(1, (width + GUTTER) // (SMALL_WIDTH + GUTTER))


def _small(rows: tuple[MemoryRow, ...], width: int, signs: Signs) -> list[Content]:
    """Small bars in columns, from top to bottom."""
    columns = _columns(width)
    height = -(-len(rows) // columns)
    lines = []
    for at in range(height):
        parts: list[Content | str] = []
        for row in rows[at::height]:
            if parts:
                parts.append(" " * GUTTER)
            parts.append(_small_bar(row, signs))
        lines.append(Content.assemble(*parts))
    return lines


def _small_bar(row: MemoryRow, signs: Signs) -> Content:
    judged = judge(row, signs)
    name = f"{row.rank}" if row.rank is not None else f"g{row.gpu_index}"
    share = "n/a" if row.share is None else f"{row.share:.0%}"
    style = "$muted" if judged.style == "bold" else judged.style
    sign = judged.sign.strip() or " "
    return Content.assemble(
        (f"{name:>4}", "$muted"),
        (sign, judged.style),
        bar(row, SMALL_BAR, signs, marks=False),
        (f"{share:>5}", style),
    )


def _map(rows: tuple[MemoryRow, ...], width: int, room: int, signs: Signs) -> list[Content]:
    """The map; the names of the worst and the legend as far as there is room."""
    said = memory_map.worst(rows, width)
    extra = min(len(said) + 1, max(0, room // 3))
    found = memory_map.heat_map(rows, width, max(1, room - extra), signs)
    left = room - len(found.lines)
    closing = [*said, memory_map.legend(rows, signs, found.together)]
    lines = [*found.lines, *closing[: max(0, left)]]
    return [line.truncate(width, ellipsis=True) for line in lines]
