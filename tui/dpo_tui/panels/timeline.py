"""Attempts and their phases as bars on a common time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content

from dpo_telemetry.events import PhaseName
from dpo_telemetry.figures import clock_text, duration
from dpo_telemetry.reader.phases import Span
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.timeline import AttemptTime, Timeline

PHASES: tuple[PhaseName, ...] = ("load", "reference", "train", "eval", "save")
STYLES: dict[PhaseName, str] = {
    "load": "$part-cache",
    "reference": "$part-gradients",
    "train": "$chart-train",
    "eval": "$chart-eval",
    "save": "$chart-chosen",
}
LABEL_CELLS = 13
FIGURE_CELLS = 11


@dataclass(frozen=True, slots=True)
class Axis:
    """Wall clock from `begin_s` to `end_s`, in seconds, over `cells` columns."""

    begin_s: float
    end_s: float
    cells: int

    def places(self, begin_s: float, end_s: float) -> range:
        """Columns of a time span, at least one."""
        scale = self.cells / max(1e-9, self.end_s - self.begin_s)
        first = min(self.cells - 1, max(0, int((begin_s - self.begin_s) * scale)))
        last = min(self.cells, max(first + 1, round((end_s - self.begin_s) * scale)))
        return range(first, last)


def timeline(
    snapshot: Snapshot, width: int, height: int, signs: Signs, *, newest_only: bool = False
) -> list[Content]:
    """A row a phase where they fit, else a row an attempt; the last line is the axis."""
    record = snapshot.record.timeline if snapshot.record is not None else Timeline()
    attempts = record.attempts[-1:] if newest_only else record.attempts
    if not attempts:
        return [Content.styled("no attempt yet: bars appear when the first process begins", "$muted")]
    axis = Axis(
        min(attempt.begin_s for attempt in attempts),
        max(_until(attempt, snapshot) for attempt in attempts),
        max(1, width - LABEL_CELLS - FIGURE_CELLS),
    )
    rows = [
        row
        for attempt in attempts
        for row in _phase_rows(record, attempt, axis, snapshot, signs, numbered=len(record.attempts) > 1)
    ]
    if len(rows) + 1 > height:
        rows = [_attempt_row(record, attempt, axis, snapshot, signs) for attempt in attempts]
        rows = rows[-max(1, height - 1) :]
    return [*rows, _axis_row(axis, signs)][: max(1, height)]


def _phase_rows(
    record: Timeline, attempt: AttemptTime, axis: Axis, snapshot: Snapshot, signs: Signs, *, numbered: bool
) -> list[Content]:
    rows = []
    by_phase: dict[PhaseName, list[Span]] = {}
    for span in record.spans.get(attempt.number, ()):
        by_phase.setdefault(span.name, []).append(span)
    for phase in PHASES:
        if phase not in by_phase:
            continue
        spans = by_phase[phase]
        cells = [(signs.track, "$chart-grid")] * axis.cells
        _paint(cells, spans, attempt, axis, snapshot, signs)
        taken_s = sum(_end(span, attempt, snapshot) - span.begin_s for span in spans)
        label = f"{attempt.number} {phase}" if numbered else phase
        rows.append(_row(label, cells, duration(taken_s)))
    gaps = [gap for gap in record.gaps if gap.attempt == attempt.number]
    if gaps:
        cells = [(signs.track, "$chart-grid")] * axis.cells
        for gap in gaps:
            for at in axis.places(gap.begin_s, gap.end_s):
                cells[at] = (signs.block, "$error")
        label = f"{attempt.number} no data" if numbered else "no data"
        rows.append(_row(label, cells, ""))
    return rows


def _attempt_row(
    record: Timeline, attempt: AttemptTime, axis: Axis, snapshot: Snapshot, signs: Signs
) -> Content:
    cells = [(signs.track, "$chart-grid")] * axis.cells
    _paint(cells, record.spans.get(attempt.number, ()), attempt, axis, snapshot, signs)
    for gap in record.gaps:
        if gap.attempt == attempt.number:
            for at in axis.places(gap.begin_s, gap.end_s):
                cells[at] = (signs.warning, "$error")
    return _row(f"attempt {attempt.number}", cells, duration(_until(attempt, snapshot) - attempt.begin_s))


def _paint(
    cells: list[tuple[str, str]],
    spans: Sequence[Span],
    attempt: AttemptTime,
    axis: Axis,
    snapshot: Snapshot,
    signs: Signs,
) -> None:
    """Inner phases lie over the outer ones; a cross is where a process ended within a phase."""
    for span in spans:
        places = axis.places(span.begin_s, _end(span, attempt, snapshot))
        for at in places:
            cells[at] = (signs.block, STYLES[span.name])
        if span.end_s is None and attempt.ended:
            cells[places[-1]] = (signs.critical, "bold $error")


def _row(label: str, cells: Sequence[tuple[str, str]], figure: str) -> Content:
    text = f"{label:<{LABEL_CELLS}}"[:LABEL_CELLS]
    return Content.assemble((text, "$muted"), *cells, f"{figure:>{FIGURE_CELLS}}")


def _axis_row(axis: Axis, signs: Signs) -> Content:
    begin, end = clock(axis.begin_s), clock(axis.end_s)
    line = signs.empty * max(0, axis.cells - len(begin) - len(end) - 2)
    figure = f"{duration(axis.end_s - axis.begin_s):>{FIGURE_CELLS}}"
    return Content.assemble(
        " " * LABEL_CELLS, (f"{begin} {line} {end}"[: axis.cells], "$chart-label"), figure
    )


def clock(wall_s: float) -> str:
    """Local time of day; empty where the time is not known."""
    return clock_text(wall_s) if wall_s else ""


def _until(attempt: AttemptTime, snapshot: Snapshot) -> float:
    """An attempt that lives goes on to now; one that is silent or ended stops at its last event."""
    going_on = not attempt.ended and snapshot.status.state != "silent"
    return max(attempt.last_s, snapshot.now_s) if going_on else attempt.last_s


def _end(span: Span, attempt: AttemptTime, snapshot: Snapshot) -> float:
    return span.end_s if span.end_s is not None else max(span.begin_s, _until(attempt, snapshot))
