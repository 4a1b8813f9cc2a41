"""What the health rules say, the gravest first."""

from __future__ import annotations

import textwrap

from textual.content import Content

from dpo_telemetry.events import Severity
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.text import printable
from dpo_tui.panels.panel import heading
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot

STYLES: dict[Severity, str] = {"critical": "$error", "warning": "$warning", "info": "$muted"}


def alerts(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """A heading with counts, then each alert on one line, or with its message below where there is room."""
    found = snapshot.alerts
    lines = [heading("alerts", _counts(found), width)]
    lines += _record_problems(snapshot, signs)
    if not found:
        return [*lines, Content.styled("nothing wrong so far", "$muted")]
    for advised in (True, False):
        full = [line for alert in found for line in _full(alert, width, signs, advised=advised)]
        if len(lines) + len(full) <= height:
            return lines + full
    room = height - len(lines)
    shown = found if len(found) <= room else found[: max(0, room - 1)]
    lines += [_short(alert, width, signs) for alert in shown]
    if len(shown) < len(found):
        lines.append(Content.styled(f"and {len(found) - len(shown)} more", "$muted"))
    return lines


def _counts(found: tuple[HealthAlert, ...]) -> Content:
    parts: list[tuple[str, str] | str] = []
    for severity, style in STYLES.items():
        count = sum(alert.severity == severity for alert in found)
        if count:
            parts += [("  " if parts else "", ""), (f"{count} {severity}", style)]
    return Content.assemble(*parts)


def _record_problems(snapshot: Snapshot, signs: Signs) -> list[Content]:
    problems = []
    if snapshot.lost_events:
        problems.append(f"{snapshot.lost_events} events were lost before they reached the file")
    if snapshot.damaged_lines:
        problems.append(f"{snapshot.damaged_lines} damaged lines in the record")
    return [Content.styled(f"{signs.warning} {problem}", "$warning") for problem in problems]


def _name(alert: HealthAlert, signs: Signs) -> Content:
    sign = {"critical": signs.critical, "warning": signs.warning, "info": signs.info}[alert.severity]
    where = f"  step {alert.step}" if alert.step is not None else ""
    if alert.last_step is not None and alert.last_step != alert.step:
        where += f"-{alert.last_step}"
    return Content.assemble(
        (f"{sign} {printable(alert.code)}", f"bold {STYLES[alert.severity]}"), (where, "$muted")
    )


def _short(alert: HealthAlert, width: int, signs: Signs) -> Content:
    line = Content.assemble(_name(alert, signs), "  ", printable(alert.message))
    return line.truncate(width, ellipsis=True)


def _full(alert: HealthAlert, width: int, signs: Signs, *, advised: bool) -> list[Content]:
    room = max(10, width - 2)
    lines = [_name(alert, signs).truncate(width, ellipsis=True)]
    lines += [Content(f"  {line}") for line in textwrap.wrap(printable(alert.message), room)]
    advice = printable(alert.advice) if advised else ""
    lines += [Content.styled(f"  {line}", "$muted") for line in textwrap.wrap(advice, room)]
    return lines
