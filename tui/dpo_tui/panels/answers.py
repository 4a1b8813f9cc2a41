"""Four answers in one glance: is it learning, is anything wrong, does it fit, when will it be done."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from textual.content import Content

from dpo_telemetry.figures import duration, number, size
from dpo_telemetry.text import printable
from dpo_tui.panels.alerts import STYLES, shown_groups
from dpo_tui.panels.progress import clock_time
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.alerts import counts

Kind = Literal["good", "unknown", "info", "warning", "critical"]

KIND_STYLES: dict[Kind, str] = {
    "good": "$success",
    "unknown": "$muted",
    "info": STYLES["info"],
    "warning": STYLES["warning"],
    "critical": STYLES["critical"],
}
LEARNING_CODES = frozenset(
    {
        "empty_completions", "reference_mismatch", "adapter_frozen", "labels_swapped",
        "base_corrupted", "adapter_empty", "loss_not_falling", "grad_vanishing", "grad_exploding",
        "accuracy_low", "margin_small", "lr_zero", "stalled",
    }
)  # fmt: skip
"""Alerts that doubt that anything is learned."""
MEMORY_CODES = frozenset({"oom", "vram_over_plan", "vram_leak"})
FEWEST_STEPS = 10
"""With fewer margins than this nothing can be said."""
LARGEST_WINDOW = 200
"""Values at each end of a run that are compared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to one question."""

    kind: Kind
    word: str
    detail: str = ""
    short: str = ""
    """The word where there is little room."""


def answers(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """The four side by side: each with its sign and word, and what it is founded on where there is room."""
    found = (learning(snapshot), wrong(snapshot), fits(snapshot), end(snapshot))
    edges = [round(width * at / len(found)) for at in range(len(found) + 1)]
    rooms = [right - left for left, right in pairwise(edges)]
    if height < 2:
        return [
            _row(
                [
                    _word(answer, room, signs, detailed=True)
                    for answer, room in zip(found, rooms, strict=True)
                ],
                rooms,
            )
        ]
    return [
        _row([_word(answer, room, signs) for answer, room in zip(found, rooms, strict=True)], rooms),
        _row([Content.styled(f"  {answer.detail}", "$muted") for answer in found], rooms),
    ]


def learning(snapshot: Snapshot) -> Answer:
    """By the alerts that doubt it; without any, by margins that are larger now than at first."""
    doubts = [group for group in shown_groups(snapshot) if not group.muted]
    alerts = [alert for group in doubts for alert in group.all_alerts if alert.code in LEARNING_CODES]
    for severity in ("critical", "warning"):
        codes = [alert.code for alert in alerts if alert.severity == severity]
        if codes:
            word = "not learning" if severity == "critical" else "learning in doubt"
            return Answer(
                "critical" if severity == "critical" else "warning", word, printable(codes[0]), "in doubt"
            )
    lines = (snapshot.charts or {}).get("margins", ())
    values = next((line.values for line in lines if not line.marked), np.empty(0))
    if len(values) < FEWEST_STEPS:
        return Answer("unknown", "too early to tell", "few margins so far", "too early")
    window = min(LARGEST_WINDOW, len(values) // 3)
    first, last = values[:window], values[-window:]
    first, last = first[np.isfinite(first)], last[np.isfinite(last)]
    if len(first) < 2 or len(last) < 2:
        return Answer("unknown", "cannot be told", "margins are not finite", "not told")
    rise = float(last.mean() - first.mean())
    noise = 2 * float(np.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last)))
    detail = f"margin {number(float(last.mean()), 3)}, {number(float(first.mean()), 3)} at first"
    if rise > noise:
        return Answer("good", "learning", detail)
    return Answer("info", "not yet learning", detail, "not yet")


def wrong(snapshot: Snapshot) -> Answer:
    """By the state of the run, then by its alerts."""
    state, reason = snapshot.status.state, printable(snapshot.status.reason)
    found = [group for group in shown_groups(snapshot) if not group.muted and not group.seen]
    if state in ("failed", "hung", "silent"):
        return Answer("critical", state, reason)
    count = counts(found)
    detail = printable(found[0].title) if found else ""
    for severity in ("critical", "warning"):
        if count.get(severity):
            kind: Kind = "critical" if severity == "critical" else "warning"
            word = (
                f"{count[severity]} critical" if kind == "critical" else _plural(count[severity], "warning")
            )
            return Answer(kind, word, detail)
    return Answer("good", "nothing wrong", detail, "all well")


def fits(snapshot: Snapshot) -> Answer:
    """By the alerts about memory, then by the fullest card, then by the plan."""
    rows = snapshot.memory
    muted = snapshot.attention.muted
    codes = [alert.code for alert in snapshot.alerts if alert.code in MEMORY_CODES - muted]
    detail, word = "", "fits"
    cards = [
        (row.capacity_bytes - row.gpu_used_bytes, row.rank)
        for row in rows
        if row.capacity_bytes and row.gpu_used_bytes is not None
    ]
    if cards:
        free, rank = min(cards)
        detail = f"{size(max(0, free))} free" + (f" on rank {rank}" if len(cards) > 1 else "")
    elif rows:
        fullest = max(rows, key=lambda row: row.measured_bytes)
        detail = size(fullest.measured_bytes)
        detail += f" of {size(fullest.planned_bytes)} planned" if fullest.planned_bytes else " measured"
    if codes:
        kind: Kind = "critical" if "oom" in codes else "warning"
        return Answer(
            kind, "out of memory" if kind == "critical" else "memory in doubt", printable(codes[0]), "memory"
        )
    if not rows:
        return Answer("unknown", "memory not measured", "", "memory n/a")
    return Answer("good", word, detail)


def end(snapshot: Snapshot) -> Answer:
    """Time left and the clock time of the end, or how it ended."""
    state = snapshot.status.state
    if snapshot.status.ended:
        kind: Kind = {"finished": "good", "stopped": "warning"}.get(state, "critical")  # type: ignore[assignment]
        of = f" of {snapshot.max_steps}" if snapshot.max_steps else ""
        return Answer(kind, state, f"at step {snapshot.step}{of}")
    if state in ("hung", "silent"):
        return Answer("critical", "stands still", f"at step {snapshot.step}", "stands still")
    if snapshot.eta_s is None:
        return Answer("unknown", "end not known yet", "", "end n/a")
    left = f"{duration(snapshot.eta_s)} left"
    return Answer("good", left, f"ends {clock_time(snapshot)}")


def _word(answer: Answer, room: int, signs: Signs, *, detailed: bool = False) -> Content:
    sign = getattr(signs, answer.kind)
    style = KIND_STYLES[answer.kind]
    word = answer.word if len(answer.word) + 3 <= room or not answer.short else answer.short
    content = Content.styled(f"{sign} {word}", f"bold {style}")
    if detailed and answer.detail and content.cell_length + len(answer.detail) + 4 <= room:
        content = Content.assemble(content, "  ", (answer.detail, "$muted"))
    return content


def _row(cells: list[Content], rooms: list[int]) -> Content:
    fitted = []
    for cell, room in zip(cells, rooms, strict=True):
        cut = cell.truncate(max(0, room - 1), ellipsis=True)
        fitted.append(Content.assemble(cut, " " * (room - cut.cell_length)))
    return Content("").join(fitted)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
