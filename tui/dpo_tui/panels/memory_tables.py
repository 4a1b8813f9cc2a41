"""What a rank measured beside what was planned for it, as tables."""

from __future__ import annotations

from textual.content import Content

from dpo_telemetry.figures import size
from dpo_telemetry.text import printable
from dpo_tui.panels.memory_bar import GROUPS, OVER_PLAN, group_sign
from dpo_tui.panels.panel import heading
from dpo_tui.signs import Signs
from dpo_tui.views.memory import Difference, MemoryView, PhasePeak

FIGURE_WIDTH = 10
NARROWEST_WITH_PLAN = 44
"""Below, the planned column gives way: it is what was measured minus the difference."""
NARROWEST_WITH_BARS = 74
BAR_WIDTH = 24
NOT_KNOWN = "n/a"
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def components_table(
    view: MemoryView, width: int, height: int, signs: Signs, *, largest_first: bool = False
) -> list[Content]:
    """Planned, measured and difference of each component, then what NVML shows of the process."""
    rows = list(view.components)
    if not rows:
        said = (
            "no rank of ours was seen on this card"
            if view.row and view.row.rank is None
            else "not measured yet"
        )
        return [heading("components", Content(""), width), Content.styled(said, "$muted")]
    if largest_first:
        rows.sort(key=lambda row: -abs(row.difference_bytes or 0))
    note = "" if view.planned else "no plan"
    lines = [_head("components at their largest" if width >= 60 else "components", note, width)]
    scale = max(max(row.planned_bytes or 0, row.measured_bytes or 0) for row in rows)
    if view.nvml is not None:
        nvml = view.nvml
        rows.append(
            Difference(
                "NVML, process",
                nvml.planned_low_bytes,
                nvml.planned_bytes,
                nvml.measured_bytes,
                nvml.difference_bytes,
            )
        )
    return lines + [_component(row, width, signs, scale) for row in rows[: height - 1]]


def phases_table(view: MemoryView, width: int, height: int, signs: Signs) -> list[Content]:
    """Peak of each phase, planned and measured."""
    title = "peak of each phase" if view.peaks_measured or not view.phases else "tensors that stay, by phase"
    if not view.phases:
        said = "no plan, and no phase measured yet"
        if view.row is not None and view.row.rank is None:
            said = "no rank of ours was seen on this card"
        return [heading(title, Content(""), width), Content.styled(said, "$muted")]
    lines = [_head(title, "", width)]
    rows = list(view.phases)
    if len(rows) > height - 1:
        rows = [row for row in rows if not row.within_train]
    return lines + [_phase(row, width, signs) for row in rows[: height - 1]]


def _head(title: str, note: str, width: int) -> Content:
    names = (
        ["planned", "measured", "difference"] if width >= NARROWEST_WITH_PLAN else ["measured", "difference"]
    )
    columns = "".join(f"{name:>{FIGURE_WIDTH + 1}}" for name in names) + "  "
    columns += " " * (BAR_WIDTH + 1) if width >= NARROWEST_WITH_BARS else ""
    left = Content.assemble((title, "bold"), (f"  {note}" if note else "", "$warning"))
    room = width - len(columns)
    left = left.truncate(max(0, room), ellipsis=True)
    return Content.assemble(left, " " * max(0, room - left.cell_length), (columns, "$muted"))


def _component(row: Difference, width: int, signs: Signs, scale: int) -> Content:
    group = GROUP_OF.get(row.name, "other")
    in_group = group in GROUPS
    sign = group_sign(group, signs) if in_group else " "
    name = Content.assemble(
        (sign, f"$part-{group}" if in_group else "$muted"), f" {printable(row.name).replace('_', ' ')}"
    )
    planned = NOT_KNOWN if row.planned_bytes is None else size(row.planned_bytes)
    if row.planned_low_bytes is not None and row.planned_low_bytes != row.planned_bytes:
        planned = interval(row.planned_low_bytes, row.planned_bytes or 0)
    bars = ""
    if width >= NARROWEST_WITH_BARS and scale and in_group:
        bars = _bar(row, scale, signs)
    return _line(
        name,
        planned,
        row.measured_bytes,
        row.difference_bytes,
        row.planned_bytes,
        width,
        signs,
        (bars, f"$part-{group}"),
    )


def interval(low: int, high: int) -> str:
    """Two sizes of one unit, as short as a column: 1.2-3.4 GiB."""
    low_text, high_text = size(low), size(high)
    if low_text.split()[-1] == high_text.split()[-1]:
        low_text = low_text.split()[0]
    return f"{low_text}-{high_text}"


def _bar(row: Difference, scale: int, signs: Signs) -> str:
    filled = round((row.measured_bytes or 0) / scale * BAR_WIDTH)
    cells = [signs.block if not signs.letters else "#"] * filled + [" "] * (BAR_WIDTH - filled)
    if row.planned_bytes:
        cells[min(BAR_WIDTH - 1, round(row.planned_bytes / scale * BAR_WIDTH))] = signs.mark
    return "".join(cells[:BAR_WIDTH])


def _phase(row: PhasePeak, width: int, signs: Signs) -> Content:
    name = Content.styled(f"  {row.phase}", "$muted") if row.within_train else Content(row.phase)
    planned = NOT_KNOWN if row.planned_bytes is None else size(row.planned_bytes)
    difference = None
    if row.planned_bytes is not None and row.measured_bytes is not None:
        difference = row.measured_bytes - row.planned_bytes
    if row.within_train:
        room = width - name.cell_length
        if width < NARROWEST_WITH_PLAN:
            return Content.assemble(name, (f"  plan {planned}", "$muted")).truncate(width)
        figures = f"{planned:>{FIGURE_WIDTH + 1}}" + " " * (2 * (FIGURE_WIDTH + 1) + 2)
        figures += " " * (BAR_WIDTH + 1) if width >= NARROWEST_WITH_BARS else ""
        return Content.assemble(name, " " * max(0, room - len(figures)), (figures, "$muted"))
    return _line(name, planned, row.measured_bytes, difference, row.planned_bytes, width, signs, ("", ""))


def _line(
    name: Content,
    planned: str,
    measured_bytes: int | None,
    difference_bytes: int | None,
    planned_bytes: int | None,
    width: int,
    signs: Signs,
    bars: tuple[str, str],
) -> Content:
    """A name, figures in columns at the right edge, and the sign of what is above its plan."""
    measured = NOT_KNOWN if measured_bytes is None else size(measured_bytes)
    difference, style, sign = NOT_KNOWN, "$muted", " "
    if difference_bytes is not None:
        difference = ("+" if difference_bytes > 0 else "") + size(difference_bytes)
        if difference_bytes > (OVER_PLAN - 1) * (planned_bytes or 0):
            style, sign = "bold $warning", signs.warning
        elif difference_bytes <= 0:
            style = "$success"
    parts: list[tuple[str, str]] = []
    if width >= NARROWEST_WITH_PLAN:
        # An interval is wider than its column and takes of the room of the name.
        parts.append((f" {planned:>{FIGURE_WIDTH}}", "$muted"))
    parts += [
        (f" {measured:>{FIGURE_WIDTH}}", ""),
        (f" {difference:>{FIGURE_WIDTH}}", style),
        (f" {sign}", style),
    ]
    if width >= NARROWEST_WITH_BARS:
        parts.append((f" {bars[0]:<{BAR_WIDTH}}", bars[1]))
    used = sum(len(text) for text, _ in parts)
    name = name.truncate(max(0, width - used), ellipsis=True)
    return Content.assemble(name, " " * max(0, width - used - name.cell_length), *parts)
