"""What happened to a run, in the order of time, as the timeline shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dpo_telemetry import events
from dpo_telemetry.figures import duration, number, size
from dpo_telemetry.reader.attempt import AttemptView
from dpo_telemetry.reader.history import Gap, Happening
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.phases import Span
from dpo_telemetry.text import printable

MAX_EVALUATIONS = 1_000
MAX_ENTRIES = 2_000
EVAL_METRICS = (
    ("loss", "eval_loss"),
    ("accuracy", "eval_rewards/accuracies"),
    ("margin", "eval_rewards/margins"),
)

Mood = Literal["", "good", "warning", "bad", "quiet"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened; its text is printable."""

    wall_s: float
    attempt: int
    what: str
    text: str
    mood: Mood = ""
    step: int | None = None


@dataclass(frozen=True, slots=True)
class AttemptTime:
    """When an attempt was under way, wall clock in seconds."""

    number: int
    begin_s: float
    last_s: float
    """Its newest event."""
    ended: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """All attempts."""

    attempts: tuple[AttemptTime, ...] = ()
    spans: Mapping[int, tuple[Span, ...]] = field(default_factory=dict)
    """By attempt, each in the order of their begin."""
    gaps: tuple[Gap, ...] = ()
    entries: tuple[Entry, ...] = ()
    """The newest last; the first says how many are not kept any more, if any."""


def take_timeline(model: RunModel) -> Timeline:
    """What is known now."""
    history = model.history
    attempts = tuple(_attempt_times(model))
    found = [
        *_happenings(list(history.happenings), model),
        *_exits(list(history.happenings), model),
        *_evaluations(model),
        *_gaps(list(history.gaps)),
    ]
    found.sort(key=lambda entry: entry.wall_s)
    dropped = max(0, len(found) - MAX_ENTRIES)
    entries = found[dropped:]
    left_out = history.left_out + dropped + max(0, len(model.series.eval) - MAX_EVALUATIONS)
    if left_out and entries:
        entries.insert(0, Entry(0.0, entries[0].attempt, "left out", f"{left_out} earlier entries", "quiet"))
    return Timeline(
        attempts=attempts,
        spans=_by_attempt(history.phases.spans()),
        gaps=tuple(history.gaps),
        entries=tuple(entries),
    )


def timeline_key(model: RunModel) -> tuple[object, ...]:
    """What a timeline is made of: it need not be made again while this stays the same."""
    history = model.history
    exits = sum(len(attempt.host_exits) for attempt in model.attempts.values())
    return (history.version, len(model.series.eval), exits, len(model.attempts))


def _by_attempt(spans: Sequence[Span]) -> dict[int, tuple[Span, ...]]:
    found: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.attempt].append(span)
    return {attempt: tuple(members) for attempt, members in found.items()}


def _attempt_times(model: RunModel) -> Iterator[AttemptTime]:
    begins: dict[int, list[float]] = defaultdict(list)
    lasts: dict[int, list[float]] = defaultdict(list)
    for happening in model.history.happenings:
        if isinstance(happening.event, events.Start):
            begins[happening.attempt].append(happening.event.t)
    for process in model.processes.values():
        if process.last_seen_s:
            lasts[process.attempt].append(process.last_seen_s)
    for found, attempt in sorted(model.attempts.items()):
        times = begins[found] or lasts[found]
        if times:
            yield AttemptTime(found, min(times), max(lasts[found] or times), _ended(model, attempt))


def _ended(model: RunModel, attempt: AttemptView) -> bool:
    return bool(attempt.host_exits) or attempt.exit is not None or attempt.number < max(model.attempts)


def _happenings(found: Sequence[Happening], model: RunModel) -> Iterator[Entry]:
    asked = {h.event.id: h.event.action for h in found if isinstance(h.event, events.Request)}
    for happening in found:
        event, attempt = happening.event, happening.attempt
        match event:
            case events.Start():
                yield _start(event, attempt, model)
            case events.Checkpoint():
                what = "final adapter" if event.final else "checkpoint"
                text = f"{size(event.size_bytes)}  {printable(event.path, 200)}"
                yield Entry(event.t, attempt, what, text, "good", event.step)
            case events.Request():
                by = f" by {printable(event.issuer, 60)}" if event.issuer else ""
                yield Entry(event.t, attempt, "request", f"{event.action}{by}", "warning")
            case events.Answer():
                what = asked.get(event.id, "request")
                said = f": {printable(event.message, 300)}" if event.message else ""
                text = f"{what} {'done' if event.ok else 'refused'}{said}"
                yield Entry(event.t, attempt, "answer", text, "good" if event.ok else "bad")
            case events.LogGap():
                text = f"{event.lost} events of {printable(happening.writer)} lost: {printable(event.reason, 200)}"
                yield Entry(event.t, attempt, "gap", text, "bad")


def _start(event: events.Start, attempt: int, model: RunModel) -> Entry:
    host = printable(event.host, 60)
    if event.role != "rank":
        return Entry(event.t, attempt, event.role, f"began on {host}, pid {event.pid}", "quiet")
    ranks = f"{event.world_size} ranks" if (event.world_size or 1) > 1 else "1 rank"
    where = f"on {host}, {printable(event.device, 60)}" if event.device else f"on {host}"
    if event.resumed_from_step is not None:
        text = f"{ranks} {where}, resumed from step {event.resumed_from_step}"
    elif attempt > min(model.attempts):
        text = f"{ranks} {where}, restarted from the beginning"
    else:
        text = f"{ranks} {where}"
    return Entry(event.t, attempt, f"attempt {attempt}", text, "good", event.resumed_from_step)


def _exits(found: Sequence[Happening], model: RunModel) -> Iterator[Entry]:
    """Ends of ranks, those alike in one entry; then what the agents say of their hosts."""
    ranks: dict[tuple[int, int], list[events.Exit]] = defaultdict(list)
    for happening in found:
        event = happening.event
        if not isinstance(event, events.Exit):
            continue
        if event.role == "rank" and event.rank is not None:
            ranks[happening.attempt, event.rank].append(event)
        else:
            yield Entry(event.t, happening.attempt, event.role, f"ended: {_end(event)}", "quiet", event.step)
    alike: dict[tuple[int, str, bool], list[tuple[int, events.Exit]]] = defaultdict(list)
    for (attempt, rank), told in ranks.items():
        event = _joined(told)
        alike[attempt, _end(event), not event.code and not event.signal].append((rank, event))
    for (attempt, text, well), members in alike.items():
        first = min((event for _, event in members), key=lambda event: event.t)
        who = "rank" if len(members) == 1 else "ranks"
        what = f"{who} {rank_list(sorted(rank for rank, _ in members))}"
        yield Entry(first.t, attempt, "exit", f"{what}: {text}", "quiet" if well else "bad", first.step)
    for view in model.attempts.values():
        for exit_ in view.host_exits:
            well = exit_.code == 0 and not exit_.signal
            stopped = exit_.reason.startswith("stopped")
            text = f"host {printable(exit_.host, 60)}: {_end(exit_)}"
            mood: Mood = "warning" if stopped else "good" if well else "bad"
            yield Entry(exit_.ended, view.number, "end", text, mood)


def _joined(told: list[events.Exit]) -> events.Exit:
    """The agent knows code and signal of a rank, the rank itself knows the step and often the reason."""
    last = max(told, key=lambda event: (event.signal != "", event.code is not None, event.t))
    reason = next((event.reason for event in [last, *told] if event.reason), "")
    step = next((event.step for event in [last, *told] if event.step is not None), None)
    return events.Exit(
        v=last.v,
        t=last.t,
        m=last.m,
        role="rank",
        code=last.code,
        signal=last.signal,
        reason=reason,
        step=step,
    )


def _end(event: events.Exit | object) -> str:
    code, signal = getattr(event, "code", None), getattr(event, "signal", "")
    reason = printable(getattr(event, "reason", ""), 300)
    how = printable(signal, 20) if signal else f"code {code}" if code is not None else ""
    return ", ".join(part for part in (how, reason) if part) or "ended"


def rank_list(ranks: Sequence[int]) -> str:
    """Rising ranks as people write them: 0-6, 9."""
    parts: list[list[int]] = []
    for rank in ranks:
        if parts and parts[-1][-1] == rank - 1:
            parts[-1] = [parts[-1][0], rank]
        else:
            parts.append([rank])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _evaluations(model: RunModel) -> Iterator[Entry]:
    table = model.series.eval
    indices = np.arange(max(0, len(table) - MAX_EVALUATIONS), len(table))
    if not len(indices):
        return
    rows, attempts, walls = table.rows(indices), table.attempts()[indices], table.wall_s(indices)
    named = [(label, name) for label, name in EVAL_METRICS if name in rows.columns]
    for at, step in enumerate(rows.steps.tolist()):
        values = [
            (label, float(rows.columns[name][at])) for label, name in named if bool(rows.present[name][at])
        ]
        text = "  ".join(f"{label} {number(value)}" for label, value in values) or "no metric of DPO"
        mood: Mood = "" if all(np.isfinite(value) for _, value in values) else "bad"
        yield Entry(float(walls[at]), int(attempts[at]), "evaluation", text, mood, step)


def _gaps(found: Sequence[Gap]) -> Iterator[Entry]:
    """Gaps of several processes at the same time in one entry."""
    together: list[list[Gap]] = []
    for gap in sorted(found, key=lambda gap: (gap.attempt, gap.begin_s)):
        last = together[-1] if together else None
        if last and last[0].attempt == gap.attempt and gap.begin_s < min(other.end_s for other in last):
            last.append(gap)
        else:
            together.append([gap])
    for gaps in together:
        begin, end = min(gap.begin_s for gap in gaps), max(gap.end_s for gap in gaps)
        who = printable(gaps[0].writer) if len(gaps) == 1 else f"{len(gaps)} processes"
        yield Entry(begin, gaps[0].attempt, "gap", f"nothing of {who} for {duration(end - begin)}", "bad")
