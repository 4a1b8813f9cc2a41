"""One alert in words: what, since when, how often, what to try, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from dpo_telemetry.figures import clock_text, duration, number, size
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.text import printable
from dpo_tui.panels.alerts import STYLES, sign_of, steps_text
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.alerts import Group
from dpo_tui.views.evidence import wall_s

SHOWN_OTHERS = 3
EXACT_BELOW = 1e6
"""Counts are shown whole up to here."""


def row_of_group(group: Group, signs: Signs) -> tuple[Content, Content]:
    """Left and right part of a cause's line in the list."""
    left = f"{sign_of(group.severity, signs)} {printable(group.title)}"
    right = [steps_text(group.first.step, group.first.last_step)]
    right += [word for word, on in (("muted", group.muted), ("acknowledged", group.seen)) if on]
    style = "$muted" if group.seen or group.muted else f"bold {STYLES[group.severity]}"
    return Content.styled(left, style), Content.styled("  ".join(filter(None, right)), "$muted")


def row_of_alert(group: Group, alert: HealthAlert, signs: Signs) -> tuple[Content, Content]:
    """Left and right part of the line of one alert under its cause."""
    dim = group.seen or group.muted
    name = printable(alert.code if alert.metric is None else f"{alert.code}  {alert.metric}")
    left = Content.assemble(
        ("  ", ""),
        (f"{sign_of(alert.severity, signs)} ", "$muted" if dim else STYLES[alert.severity]),
        (name, "$muted" if dim else "$foreground"),
    )
    return left, Content.styled(steps_text(alert.step, alert.last_step), "$muted")


def told(
    group: Group, alert: HealthAlert | None, snapshot: Snapshot, signs: Signs, *, brief: bool = False
) -> Content:
    """What happened and what to try.

    Args:
        group: a cause with its symptoms.
        alert: one of the group, None for the whole.
        snapshot: what else is known.
        signs: characters.
        brief: leave out what the list says already, and say the rest last.
    """
    what = alert or group.first
    severity = group.severity if alert is None else alert.severity
    title = group.title if alert is None else what.code
    head = [
        Content.styled(f"{sign_of(severity, signs)} {printable(title)}", f"bold {STYLES[severity]}"),
        Content.styled("  ".join(_facts(what, severity, snapshot)), "$muted"),
    ]
    body = [Content(_sentence(what.message) + (_others(group.alerts) if alert is None else ""))]
    if alert is not None and alert in group.symptoms:
        body.append(Content.assemble(("because  ", "bold"), printable(group.title)))
    if what.advice:
        body.append(Content.assemble(("try  ", "bold $success"), printable(what.advice)))
    return Content("\n").join([*body, head[1]] if brief else head + body)


def rests_on(group: Group, alert: HealthAlert | None) -> Content:
    """Figures, what the cause explains, and where it is described."""
    what = alert or group.first
    lines = []
    if what.evidence:
        figures = "   ".join(_figure(name, value) for name, value in what.evidence.items())
        lines.append(Content.assemble(("evidence  ", "bold"), printable(figures)))
    if alert is None and group.symptoms:
        explained = "; ".join(printable(symptom.message) for symptom in group.symptoms)
        lines.append(Content.assemble(("explains  ", "bold"), explained))
    if what.references:
        lines.append(Content.assemble(("see  ", "bold"), printable("   ".join(what.references))))
    return Content("\n").join(lines)


def _facts(alert: HealthAlert, severity: str, snapshot: Snapshot) -> list[str]:
    facts = [severity, printable(alert.code), _since(alert, snapshot)]
    facts.append("once" if alert.count == 1 else f"{alert.count} times")
    return [fact for fact in facts if fact]


def _since(alert: HealthAlert, snapshot: Snapshot) -> str:
    if alert.step is None:
        return ""
    logged_s = wall_s(alert, snapshot.metrics)
    when = ""
    if logged_s is not None:
        when = clock_text(logged_s, ", %Y-%m-%d %H:%M")
        if when and not snapshot.status.ended:
            when += f", {duration(snapshot.now_s - logged_s)} ago"
    return f"since step {alert.step}{when}"


def _sentence(text: str) -> str:
    """With a capital, but for names of metrics, and a full stop."""
    clean = printable(text)
    first = clean.partition(" ")[0]
    if not {"_", "/"} & set(first):
        clean = clean[:1].upper() + clean[1:]
    return clean if clean.endswith(".") else f"{clean}."


def _others(alerts: Sequence[HealthAlert]) -> str:
    """On which other metrics the same is seen."""
    names = [printable(alert.metric or alert.code) for alert in alerts[1:]]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN_OTHERS} more" if len(names) > SHOWN_OTHERS else ""
    return f" The same on {', '.join(names[:SHOWN_OTHERS])}{more}."


def _figure(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        shown = size(value)
    else:
        shown = f"{value:.0f}" if value == int(value) and abs(value) < EXACT_BELOW else number(value)
    return f"{name.removesuffix('_bytes').replace('_', ' ')} {shown}"
