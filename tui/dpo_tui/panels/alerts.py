"""What the health rules say: causes first, the gravest on top."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from textual.content import Content

from dpo_telemetry.events import Severity
from dpo_telemetry.text import printable
from dpo_tui.panels.panel import heading
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.alerts import Group, counts, groups

STYLES: dict[Severity, str] = {"critical": "$error", "warning": "$warning", "info": "$muted"}

LEVELS = ((2, 2), (2, 1), (1, 1), (2, 0), (1, 0))
"""How much is said of the first group and of the others: 2 with advice, 1 with the message below, 0 one line."""


def shown_groups(snapshot: Snapshot) -> tuple[Group, ...]:
    """All alerts of a snapshot in the order in which they are read."""
    return groups(snapshot.alerts, snapshot.findings, snapshot.attention)


def alerts(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """A heading with counts, then each cause on one line, or with more below where there is room."""
    found = [group for group in shown_groups(snapshot) if not group.muted]
    lines = [heading("alerts", count_text(found), width), *record_problems(snapshot, signs)]
    if not found:
        return [*lines, Content.styled("nothing wrong so far", "$muted")]
    for first, others in LEVELS:
        full = [
            line
            for at, group in enumerate(found)
            for line in _group(group, width, signs, others if at else first)
        ]
        if len(lines) + len(full) <= height:
            return lines + full
    room = height - len(lines)
    shown = found if len(found) <= room else found[: max(0, room - 1)]
    lines += [_one_line(group, width, signs) for group in shown]
    if len(shown) < len(found):
        lines.append(Content.styled(f"and {len(found) - len(shown)} more", "$muted"))
    return lines


def count_text(found: Iterable[Group]) -> Content:
    """How many alerts of each severity: "1 critical  2 warning"."""
    parts = [(f"{count} {severity}", STYLES[severity]) for severity, count in counts(found).items()]
    return Content("  ").join(Content.styled(*part) for part in parts)


def record_problems(snapshot: Snapshot, signs: Signs) -> list[Content]:
    """What is missing from the record that all the rest is judged by."""
    problems = []
    if snapshot.lost_events:
        problems.append(f"{snapshot.lost_events} events were lost before they reached the file")
    if snapshot.damaged_lines:
        problems.append(f"{snapshot.damaged_lines} damaged lines in the record")
    return [Content.styled(f"{signs.warning} {problem}", "$warning") for problem in problems]


def sign_of(severity: Severity, signs: Signs) -> str:
    """The character that stands for a severity."""
    return {"critical": signs.critical, "warning": signs.warning, "info": signs.info}[severity]


def steps_text(first: int | None, last: int | None) -> str:
    """ "step 2" or "step 14-60"; nothing where no step is known."""
    if first is None:
        return ""
    return f"step {first}" if last is None or last == first else f"step {first}-{last}"


def _name(group: Group, signs: Signs) -> Content:
    style = "$muted" if group.seen else f"bold {STYLES[group.severity]}"
    where = [steps_text(group.first.step, group.first.last_step)]
    if group.symptoms:
        where.append(f"+{len(group.symptoms)} symptom{'s' * (len(group.symptoms) > 1)}")
    if group.seen:
        where.append("acknowledged")
    text = f"{sign_of(group.severity, signs)} {printable(group.title)}"
    return Content.assemble((text, style), *((f"  {part}", "$muted") for part in where if part))


def _one_line(group: Group, width: int, signs: Signs) -> Content:
    line = Content.assemble(_name(group, signs), "  ", _message(group, group.first.message))
    return line.truncate(width, ellipsis=True)


def _group(group: Group, width: int, signs: Signs, level: int) -> list[Content]:
    if group.seen or not level:
        return [_one_line(group, width, signs)]
    room = max(10, width - 2)
    lines = [_name(group, signs).truncate(width, ellipsis=True)]
    lines += [_message(group, f"  {line}") for line in _wrapped(group.first.message, room)]
    advice = _wrapped(group.first.advice, room) if level > 1 else ()
    return lines + [Content.styled(f"  {line}", "$muted") for line in advice]


def _message(group: Group, text: str) -> Content:
    return Content.styled(printable(text), "$muted" if group.seen else "$foreground")


def _wrapped(text: str, width: int) -> Sequence[str]:
    return textwrap.wrap(printable(text), width)
