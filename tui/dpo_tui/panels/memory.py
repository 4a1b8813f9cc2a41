"""Memory of each rank against its plan."""

from __future__ import annotations

from collections.abc import Mapping

from textual.content import Content

from dpo_telemetry import components
from dpo_telemetry.figures import size
from dpo_tui.panels.panel import heading
from dpo_tui.signs import Signs
from dpo_tui.snapshot import MemoryRow, Snapshot

GROUPS: Mapping[str, tuple[str, ...]] = {
    "weights": (components.POLICY_WEIGHTS, components.REFERENCE_WEIGHTS),
    "adapters": (components.ADAPTERS,),
    "gradients": (components.GRADIENTS,),
    "optimizer": (components.OPTIMIZER_STATES,),
    "activations": (components.ACTIVATIONS,),
    "cache": (components.CACHE_FRAGMENTATION,),
    "context": (components.CONTEXT_COMMUNICATION,),
}
"""Components that share a colour; `part-NAME` is the theme's variable."""

OVER_PLAN = 1.05
"""Above the plan by more than this share, the figure is a warning."""


def memory(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """A heading, then for each rank its figures over its bar, and the legend where there is room."""
    rows = snapshot.memory
    if not rows:
        return [heading("memory", Content(""), width), Content.styled("not measured yet", "$muted")]
    lines = [heading("memory", Content.styled(f"plan {signs.mark}", "$muted"), width)]
    tall = height > 2 * len(rows)
    room = (height - 1) // 2 if tall else height - 1
    shown = len(rows) if len(rows) <= room else max(0, room - 1)
    for row in rows[:shown]:
        lines += [_figures(row, width), bar(row, width, signs)] if tall else [_flat_row(row, width, signs)]
    if shown < len(rows):
        lines.append(Content.styled(f"and {len(rows) - shown} more ranks", "$muted"))
    left = height - len(lines)
    legends = (_legend(rows, width, signs, sizes=sizes) for sizes in (True, False))
    return lines + next((legend for legend in legends if len(legend) <= left), [])


def by_group(parts: Mapping[str, int]) -> dict[str, int]:
    """Bytes by group; a group none of whose components was measured is absent."""
    groups = {
        group: sum(parts[name] for name in names if name in parts)
        for group, names in GROUPS.items()
        if any(name in parts for name in names)
    }
    other = sum(count for name, count in parts.items() if name not in components.ALL)
    return groups | ({"other": other} if other else {})


def bar(row: MemoryRow, width: int, signs: Signs) -> Content:
    """Groups side by side, the plan's mark over them; the full width is the card or the larger sum."""
    scale = max(row.measured_bytes, row.planned_bytes) * 1.05
    scale = max(scale, row.capacity_bytes or 0, 1)
    cells: list[tuple[str, str]] = [(signs.track, "$chart-grid")] * width
    start = 0
    for group, count in by_group(row.measured).items():
        if count <= 0:
            continue
        end = min(width, round((start + count) / scale * width))
        first = min(width, round(start / scale * width))
        cells[first:end] = [(signs.block, f"${_variable(group)}")] * (end - first)
        start += count
    if row.planned_bytes and width:
        cells[min(width - 1, round(row.planned_bytes / scale * width))] = (signs.mark, "bold $foreground")
    return Content.assemble(*cells)


def _flat_row(row: MemoryRow, width: int, signs: Signs) -> Content:
    text = _figures(row, width // 2)
    return Content.assemble(text, " ", bar(row, max(0, width - text.cell_length - 1), signs))


def _figures(row: MemoryRow, width: int) -> Content:
    parts: list[str | tuple[str, str]] = [(f"rank {row.rank}  ", "$muted")]
    over = row.planned_bytes and row.measured_bytes > row.planned_bytes * OVER_PLAN
    parts.append((size(row.measured_bytes), "bold $warning" if over else "bold"))
    if row.planned_bytes:
        parts.append((f" of {size(row.planned_bytes)} planned", "$muted"))
    extras = []
    if row.gpu_used_bytes is not None:
        of = f" of {size(row.capacity_bytes)}" if row.capacity_bytes else ""
        extras.append(f"  card {size(row.gpu_used_bytes)}{of}")
    elif row.rss_bytes is not None:
        extras.append(f"  RSS {size(row.rss_bytes)}")
    content = Content.assemble(*parts)
    for extra in extras:
        if content.cell_length + len(extra) <= width:
            content = Content.assemble(content, (extra, "$muted"))
    return content.truncate(width, ellipsis=True)


def _legend(rows: tuple[MemoryRow, ...], width: int, signs: Signs, *, sizes: bool) -> list[Content]:
    """Each group, with its largest use of any rank if asked, in as many lines as it takes."""
    largest: dict[str, int] = {}
    for row in rows:
        for group, count in by_group(row.measured).items():
            largest[group] = max(count, largest.get(group, 0))
    lines: list[Content] = []
    for group, count in largest.items():
        figure = f" {size(count)}" if sizes else ""
        entry = Content.assemble((signs.block, f"${_variable(group)}"), f" {group}", (figure, "$muted"))
        if lines and lines[-1].cell_length + 2 + entry.cell_length <= width:
            lines[-1] = Content.assemble(lines[-1], "  ", entry)
        else:
            lines.append(entry)
    return lines


def _variable(group: str) -> str:
    return f"part-{group}" if group in GROUPS else "muted"
