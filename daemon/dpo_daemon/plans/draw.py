"""A plan as bars and tables; letters stand for the colours where there is no terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dpo_profiles.plan.report import ALLOCATED, Plan, RankPlan
from dpo_telemetry.figures import size
from dpo_telemetry.text import printable

GIB = 1 << 30
LARGEST_BAR_CELLS = 76
FRAME_CELLS = 2
STYLES = ("blue", "cyan", "magenta", "yellow", "green", "bright_blue")
LETTERS = "PRAGOX"
"""Of the components that torch allocates, in their order: policy, reference, adapters, gradients, optimizer,
activations."""


def print_plan(plan: Plan, notes: Iterable[str] = ()) -> None:
    """Each kind of GPU with its bar and phases, then the host, the verdict and what to do.

    Args:
        plan: what to draw.
        notes: lines that are put before the plan's own advice.
    """
    console = Console()
    parameters = f"{plan.model.parameters:,} parameters, {plan.model.trainable_parameters:,} trainable"
    say(console, f"{plan.profile}: {plan.model.name}: {parameters}")
    for ranks in alike(plan.per_gpu):
        _print_rank(console, plan, ranks)
    say(console, f"host memory {size(plan.host_ram_bytes)}, disk {size(plan.disk_bytes)}")
    if plan.gpu.capacity_bytes:
        console.print(Text("fits", "green") if plan.fits else Text("does not fit", "bold red"))
    for line in (*notes, *plan.advice):
        say(console, f"- {line}", hang="  ")


def say(console: Console, text: str, hang: str = "") -> None:
    """A line of prose: wrapped on a terminal, whole where a program reads it."""
    if console.is_terminal:
        text = textwrap.fill(printable(text), console.width, subsequent_indent=hang)
    console.print(Text(text), soft_wrap=True)


def alike(ranks: list[RankPlan]) -> list[list[RankPlan]]:
    """Ranks that do not differ, together, in their order."""
    groups: list[list[RankPlan]] = []
    for rank in ranks:
        for group in groups:
            if msgspec.structs.replace(rank, rank=group[0].rank) == group[0]:
                group.append(rank)
                break
        else:
            groups.append([rank])
    return groups


def _print_rank(console: Console, plan: Plan, ranks: list[RankPlan]) -> None:
    rank, capacity = ranks[0], plan.gpu.capacity_bytes
    colours = console.is_terminal and not console.no_color
    card = f" ({plan.gpu.name}, {size(capacity)})" if capacity else ""
    say(console, f"{_title(plan, ranks)}{card}")
    for line in _bar(rank, capacity, min(console.width - FRAME_CELLS, LARGEST_BAR_CELLS), colours):
        console.print(line, no_wrap=True, overflow="crop")
    for line in _legend(rank, colours, console.width):
        console.print(line)
    console.print(_facts(rank, capacity))
    console.print(_phases(rank))


def _title(plan: Plan, ranks: list[RankPlan]) -> str:
    if plan.world_size == 1:
        return "on the one device"
    if len(ranks) == plan.world_size:
        return f"each of {plan.world_size} GPUs"
    return f"GPU {', '.join(str(rank.rank) for rank in ranks)}"


def _peak(rank: RankPlan) -> str:
    """The phase that allocates most."""
    return max(rank.phases, key=lambda phase: sum(rank.phases[phase].values()))


def _bar(rank: RankPlan, capacity: int, cells: int, colours: bool) -> list[Text]:
    """Components of the peak phase side by side, and below them what NVML may show; the frame is the scale's end.

    The scale ends at the capacity, or where the plan exceeds it, or the capacity is unknown, at NVML's upper end.
    """
    whole = max(capacity, rank.nvml_bytes.high, 1)

    def cell(count: int) -> int:
        return min(cells, round(count / whole * cells))

    bar, used = Text("▕"), 0
    for index, name in enumerate(ALLOCATED):
        begin, used = used, used + rank.phases[_peak(rank)][name]
        glyph = "█" if colours else LETTERS[index]
        bar.append(glyph * (cell(used) - cell(begin)), STYLES[index])
    bar.append("·" * (cells + 1 - len(bar)) + "▏")
    low = min(cell(rank.nvml_bytes.low), cells - 2)
    high = max(cell(rank.nvml_bytes.high), low + 2)
    band = Text(" " * (1 + low)).append("├" + "─" * (high - low - 2) + "┤", "bold")
    label = " NVML"
    if cells - high >= len(label):
        band.append(label)
    elif low >= len(label):
        band = Text(" " * (low - len(label)) + "NVML " + " ") + band[1 + low :]
    lines = [bar, band]
    if 0 < capacity < whole:
        lines.append(Text(" " * (1 + cell(capacity)) + "▲ capacity", "bold red"))
        if cell(capacity) + len("▲ capacity") > cells:
            lines[-1] = Text("capacity ▲".rjust(2 + cell(capacity)), "bold red")
    return lines


def _legend(rank: RankPlan, colours: bool, width: int) -> list[Text]:
    """Components that are not empty at the peak, as many on a line as have room."""
    phase = _peak(rank)
    lines = [Text(f"at the peak, {phase}:")]
    for index, name in enumerate(ALLOCATED):
        count = rank.phases[phase][name]
        if not count:
            continue
        entry = Text("  ") + Text("■" if colours else LETTERS[index], STYLES[index])
        entry.append(f" {name} {size(count)}")
        if len(lines[-1]) + len(entry) > width:
            lines.append(Text())
        lines[-1].append_text(entry)
    return lines


def _facts(rank: RankPlan, capacity: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("resident", size(rank.resident_bytes))
    table.add_row("peak allocated", size(rank.peak_allocated_bytes))
    table.add_row("cache, fragmentation", _interval(rank.cache_fragmentation_bytes.low,
                                                    rank.cache_fragmentation_bytes.high))  # fmt: skip
    table.add_row("context, communication", _interval(rank.context_communication_bytes.low,
                                                      rank.context_communication_bytes.high))  # fmt: skip
    table.add_row("NVML will show", _interval(rank.nvml_bytes.low, rank.nvml_bytes.high))
    if capacity:
        headroom = rank.headroom_bytes
        said = f"{size(headroom)} below the capacity" if headroom >= 0 else f"{size(-headroom)} too little"
        table.add_row("headroom", Text(said, "green" if headroom >= 0 else "bold red"))
    return table


def _interval(low: int, high: int) -> str:
    return f"{size(low)} to {size(high)}"


def _phases(rank: RankPlan) -> Table:
    """Phase by component in GiB, without the components that are 0 in all phases."""
    used = [name for name in ALLOCATED if any(parts[name] for parts in rank.phases.values())]
    peak = _peak(rank)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("GiB", no_wrap=True)
    for name in used:
        table.add_column(name.replace("_", "\n"), justify="right")
    table.add_column("total", justify="right")
    for phase, parts in rank.phases.items():
        figures = [f"{parts[name] / GIB:.2f}" for name in used]
        total = f"{sum(parts.values()) / GIB:.2f}"
        shown = f"{phase} ◀ peak" if phase == peak else phase
        table.add_row(shown, *figures, total, style="bold" if phase == peak else "")
    return table
