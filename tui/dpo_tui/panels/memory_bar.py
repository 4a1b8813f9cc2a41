"""One rank's memory as a bar: component groups side by side, and where the plan and the card stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textual.content import Content

from dpo_telemetry import components
from dpo_telemetry.figures import size
from dpo_tui.signs import Signs
from dpo_tui.views.memory_rows import MemoryRow

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
LETTERS = {
    "weights": "W", "adapters": "A", "gradients": "G", "optimizer": "O", "activations": "T", "cache": "C",
    "context": "X", "other": "?",
}  # fmt: skip
"""What stands for a group where colours cannot be seen."""

OVER_PLAN = 1.05
"""Above the plan by more than this share, the figure is a warning."""
NEARLY_FULL = 0.95
"""Of the card, from which on the figure is an error."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the signs and colours of a row say."""

    style: str
    sign: str


def judge(row: MemoryRow, signs: Signs) -> Judgement:
    """An error on a card that is nearly full, a warning above the plan."""
    if row.capacity_bytes and row.held_bytes >= NEARLY_FULL * row.capacity_bytes:
        return Judgement("bold $error", f" {signs.critical}")
    above = row.planned_nvml_bytes is not None and (row.process_bytes or 0) > row.planned_nvml_bytes[1]
    if above or (row.planned_bytes and row.measured_bytes > row.planned_bytes * OVER_PLAN):
        return Judgement("bold $warning", f" {signs.warning}")
    return Judgement("bold", "")


def by_group(parts: Mapping[str, int]) -> dict[str, int]:
    """Bytes by group; a group none of whose components was measured is absent."""
    groups = {
        group: sum(parts[name] for name in names if name in parts)
        for group, names in GROUPS.items()
        if any(name in parts for name in names)
    }
    other = sum(count for name, count in parts.items() if name not in components.ALL)
    return groups | ({"other": other} if other else {})


def scale_bytes(row: MemoryRow) -> float:
    """What the full width of a row's bar is: the card, or what is larger."""
    known = [row.measured_bytes, row.planned_bytes, *row.planned_peaks.values()]
    if row.planned_nvml_bytes is not None:
        known.append(row.planned_nvml_bytes[1])
    largest = max(known) * 1.05
    return max(largest if max(known) > (row.capacity_bytes or 0) else 0, row.capacity_bytes or 0, 1)


def planned_mark(row: MemoryRow) -> int:
    """Where the plan's mark is: its highest phase, where peaks are measured, else the measured components' plan."""
    return max(row.planned_peaks.values(), default=row.planned_bytes)


def bar(row: MemoryRow, width: int, signs: Signs, *, marks: bool = True) -> Content:
    """Groups side by side, what others use of the card behind them, the marks of plan and card over them."""
    scale = scale_bytes(row)
    cells: list[tuple[str, str]] = [(signs.track, "$chart-grid")] * width
    start = 0
    for group, count in by_group(row.measured).items():
        if count > 0:
            cell = (group_sign(group, signs), f"${_variable(group)}")
            _fill(cells, start / scale, (start + count) / scale, cell)
            start += count
    if (row.gpu_used_bytes or 0) > start:
        cell = (others_sign(signs), "$muted")
        _fill(cells, start / scale, (row.gpu_used_bytes or 0) / scale, cell)
    if marks:
        if row.planned_nvml_bytes is not None:
            _put(cells, row.planned_nvml_bytes[0] / scale, signs.interval[0], "bold $foreground")
            _put(cells, row.planned_nvml_bytes[1] / scale, signs.interval[-1], "bold $foreground")
        if planned_mark(row):
            _put(cells, planned_mark(row) / scale, signs.mark, "bold $foreground")
        if row.capacity_bytes and scale > row.capacity_bytes:
            _put(cells, row.capacity_bytes / scale, signs.edge, "bold $error")
    return Content.assemble(*_runs(cells))


def ruler(row: MemoryRow, width: int, signs: Signs) -> Content:
    """Under a bar: a tick a phase of the plan, the highest named, and what NVML is planned to show."""
    scale = scale_bytes(row)
    cells: list[tuple[str, str]] = [(" ", "")] * width
    low, high = row.planned_nvml_bytes or (0, 0)
    if high:
        _fill(cells, low / scale, high / scale, (signs.interval[1], "$muted"))
        _put(cells, low / scale, signs.interval[0], "$muted")
        _put(cells, high / scale, signs.interval[-1], "$muted")
        _write(
            cells, min(width - 1, round(low / scale * width)) + 2, "NVML", limit=round(high / scale * width)
        )
    for count in row.planned_peaks.values():
        _put(cells, count / scale, signs.tick, "$muted")
    if row.planned_peaks:
        highest = max(row.planned_peaks, key=lambda name: row.planned_peaks[name])
        at = min(width - 1, round(row.planned_peaks[highest] / scale * width))
        lowest = min(row.planned_peaks.values())
        first = round(lowest / scale * width)
        _put(cells, row.planned_peaks[highest] / scale, signs.tick, "bold $foreground")
        name = f"plan: {highest}"
        _write(cells, first - len(name) - 1, name, limit=first)
        if first - len(name) - 1 < 0:
            _write(cells, at + 2, name, limit=width)
    return Content.assemble(*_runs(cells))


def legend(rows: tuple[MemoryRow, ...], width: int, signs: Signs, *, sizes: bool) -> list[Content]:
    """Each group, with its largest use of any rank if asked, in as many lines as it takes."""
    largest: dict[str, int] = {}
    for row in rows:
        for group, count in by_group(row.measured).items():
            largest[group] = max(count, largest.get(group, 0))
    others = max(((row.gpu_used_bytes or 0) - row.measured_bytes for row in rows), default=0)
    shown = [
        (group, count, group_sign(group, signs), f"${_variable(group)}") for group, count in largest.items()
    ]
    if others > 0:
        shown.append(("others", others, others_sign(signs), "$muted"))
    lines: list[Content] = []
    for group, count, sign, style in shown:
        figure = f" {size(count)}" if sizes else ""
        entry = Content.assemble((sign, style), f" {group}", (figure, "$muted"))
        if lines and lines[-1].cell_length + 2 + entry.cell_length <= width:
            lines[-1] = Content.assemble(lines[-1], "  ", entry)
        else:
            lines.append(entry)
    return lines


def group_sign(group: str, signs: Signs) -> str:
    """A block in the group's colour, or its letter where colours cannot be seen."""
    return LETTERS[group] if signs.letters else signs.block


def others_sign(signs: Signs) -> str:
    """What of a card is used, but not by the rank."""
    return LETTERS["other"] if signs.letters else signs.full


def _variable(group: str) -> str:
    return f"part-{group}" if group in GROUPS else "muted"


def _fill(cells: list[tuple[str, str]], start: float, end: float, cell: tuple[str, str]) -> None:
    width = len(cells)
    first, last = min(width, round(start * width)), min(width, round(end * width))
    cells[first:last] = [cell] * (last - first)


def _put(cells: list[tuple[str, str]], share: float, sign: str, style: str) -> None:
    if cells:
        cells[min(len(cells) - 1, round(share * len(cells)))] = (sign, style)


def _write(cells: list[tuple[str, str]], start: int, text: str, limit: int) -> None:
    """Where it fits whole before `limit`."""
    if start >= 0 and start + len(text) <= min(limit, len(cells)):
        cells[start : start + len(text)] = [(character, "$muted") for character in text]


def _runs(cells: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one style as one piece."""
    found: list[tuple[str, str]] = []
    for text, style in cells:
        if found and found[-1][1] == style:
            found[-1] = (found[-1][0] + text, style)
        else:
            found.append((text, style))
    return found
