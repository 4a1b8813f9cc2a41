"""What memory says in words: who else is on the card, when it will be full, why it ran out."""

from __future__ import annotations

import textwrap

from textual.content import Content

from dpo_telemetry.figures import duration, size
from dpo_telemetry.text import printable
from dpo_tui.panels.memory_map import name_of
from dpo_tui.panels.panel import heading
from dpo_tui.signs import Signs
from dpo_tui.views.autopsy import Autopsy, Ledger
from dpo_tui.views.memory import Growth, MemoryView

MUCH_OF_OTHERS = 1 << 30
"""What others use of the card, from which on it is a warning."""
MOST_COMPONENTS = 4


def place_line(view: MemoryView, ranks: int, width: int, signs: Signs) -> Content:
    """Which rank or card is shown, and how full its card is."""
    row = view.row
    if row is None:
        return Content.styled("memory was not measured yet", "$muted").truncate(width, ellipsis=True)
    parts: list[tuple[str, str]] = [(f"{signs.chosen} {name_of(row)}", "bold")]
    if ranks > 1:
        parts.append((f" of {ranks}", "$muted"))
    if view.gpu_name:
        parts.append((f"  {printable(view.gpu_name)}", "$muted"))
    if row.capacity_bytes:
        used = row.gpu_used_bytes if row.gpu_used_bytes is not None else row.measured_bytes
        parts.append((f"  {size(used)} of {size(row.capacity_bytes)}", "bold"))
        parts.append((f" {used / row.capacity_bytes:.0%}", "$muted"))
    elif row.rss_bytes is not None:
        parts.append((f"  no GPU, RSS {size(row.rss_bytes)}", "$muted"))
    return Content.assemble(*parts).truncate(width, ellipsis=True)


def notes(view: MemoryView, width: int) -> list[Content]:
    """Other processes and the forecast; nothing where there is nothing to say."""
    found = []
    if view.row is not None and not view.planned:
        found.append(_wrapped("There is no plan to hold this against.", "$muted", width))
    if view.others_bytes is not None:
        style = "$warning" if view.others_bytes >= MUCH_OF_OTHERS else "$muted"
        text = f"Other processes use {size(view.others_bytes)} of the card."
        if view.others_bytes < MUCH_OF_OTHERS // 64:
            text = "Nobody else uses the card."
        found.append(_wrapped(text, style, width))
    elif view.row is not None and view.row.rank is None:
        found.append(
            _wrapped(
                "NVML shows none of our ranks on this card, so whose memory it is is not known.",
                "$muted",
                width,
            )
        )
    elif view.row is not None and view.row.gpu_index is None and view.row.planned_peaks:
        found.append(
            _wrapped(
                "NVML did not show this rank, so what others use of its card is not known.", "$muted", width
            )
        )
    if view.growth is not None:
        found.append(_forecast(view.growth, width))
    return [line for lines in found for line in lines]


def _forecast(growth: Growth, width: int) -> list[Content]:
    found = growth.forecast
    text = (
        f"Grows by {size(round(found.bytes_per_s * 60))} a minute over the last {duration(found.recent_s)}: {growth.of}"
        f" is full in about {duration(found.full_in_s)} (95 %: {duration(found.soonest_s)}"
        f" to {duration(found.latest_s)})"
    )
    ends = growth.run_ends_in_s
    if ends is None:
        return _wrapped(f"{text} if it goes on.", "bold $warning", width)
    if ends < found.soonest_s:
        return _wrapped(f"{text} if it goes on; the run ends before, in {duration(ends)}.", "$warning", width)
    when = "before the run ends" if ends > found.latest_s else "about when the run ends"
    return _wrapped(f"{text} if it goes on, {when} (in {duration(ends)}).", "bold $error", width)


def autopsy_lines(died: Autopsy, width: int, height: int, signs: Signs) -> list[Content]:
    """Where and in which phase it ran out, what was over, what to change; the advice stays when room is short."""
    lines = [heading("out of memory", Content(""), width), *_wrapped(_when(died), "bold $error", width)]
    advice = [
        line for text in died.advice for line in _wrapped(text, "", width, start=f"{signs.info} ", hang="  ")
    ]
    figures = _wrapped(_needed(died), "", width) if _needed(died) else []
    ledger = [_ledger(row, width, signs) for row in died.ledger[:MOST_COMPONENTS]]
    said = _wrapped(died.said, "$muted", width) if died.said else []
    room = height - len(lines)
    for block in (advice, figures, ledger, said):
        room -= len(block)
        if room < 0:
            block[len(block) + room :] = []
            room = 0
    return [*lines, *figures, *ledger, *said, *advice][:height]


def _when(died: Autopsy) -> str:
    where = "the host" if died.of_host else "a card" if died.rank is None else f"the card of rank {died.rank}"
    if died.of_host and died.rank is not None:
        where = f"the host of rank {died.rank}"
    more = f" (and of {died.ranks - 1} more ranks)" if died.ranks > 1 else ""
    phase = f" in {died.phase}" if died.phase else ""
    step = f", after step {died.step}" if died.step else ""
    return f"Attempt {died.attempt}: {where}{more} ran out of memory{phase}{step}."


def _needed(died: Autopsy) -> str:
    parts = []
    if died.needed_bytes is not None:
        text = f"It needed {size(died.needed_bytes)} allocated ({size(died.requested_bytes)} more at the end)"
        if died.planned_peak_bytes:
            text += f", planned were {size(died.planned_peak_bytes)}"
        parts.append(text)
    elif died.requested_bytes is not None:
        parts.append(f"The last request was {size(died.requested_bytes)}")
    if died.free_bytes is not None:
        parts.append(f"{size(died.free_bytes)} were free")
    if died.unallocated_bytes:
        parts.append(f"{size(died.unallocated_bytes)} reserved in pieces")
    if died.others_bytes:
        parts.append(f"others held {size(died.others_bytes)}")
    return "; ".join(parts) + "." if parts else ""


def _ledger(row: Ledger, width: int, signs: Signs) -> Content:
    name = printable(row.name).replace("_", " ")
    if row.planned_bytes is None:
        return Content.assemble(f"  {name} {size(row.measured_bytes)}", (", no plan", "$muted")).truncate(
            width
        )
    over = f", {size(row.over_bytes)} over {signs.warning}" if row.over_bytes else ", within"
    return Content.assemble(
        f"  {name} {size(row.measured_bytes)}",
        (f" of {size(row.planned_bytes)} planned", "$muted"),
        (over, "bold $warning" if row.over_bytes else "$success"),
    ).truncate(width, ellipsis=True)


def _wrapped(text: str, style: str, width: int, start: str = "", hang: str = "") -> list[Content]:
    lines = textwrap.wrap(printable(text), max(8, width), initial_indent=start, subsequent_indent=hang)
    return [Content.styled(line, style) if style else Content(line) for line in lines]
