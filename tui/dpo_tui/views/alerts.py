"""Alerts in the order in which they are read: causes with their symptoms, then what stands alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dpo_telemetry.events import SEVERITIES, Severity
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_tui.attention import Attention


@dataclass(frozen=True, slots=True)
class Group:
    """A cause with everything that belongs to it, or one alert that no finding speaks of."""

    finding: Finding | None
    alerts: tuple[HealthAlert, ...]
    """Those of the cause's own code; at least one, the gravest first."""
    symptoms: tuple[HealthAlert, ...] = ()
    """Alerts that the cause explains."""
    seen: bool = False
    muted: bool = False

    @property
    def first(self) -> HealthAlert:
        """The alert that says what happened."""
        return self.alerts[0]

    @property
    def all_alerts(self) -> tuple[HealthAlert, ...]:
        """The cause's own alerts and its symptoms."""
        return self.alerts + self.symptoms

    @property
    def severity(self) -> Severity:
        """That of the gravest alert."""
        return max((alert.severity for alert in self.all_alerts), key=SEVERITIES.index)

    @property
    def title(self) -> str:
        """The cause, or the code where there is no finding."""
        return self.finding.cause if self.finding is not None else self.first.code

    @property
    def step(self) -> int | None:
        """First step that shows any of it."""
        return min((alert.step for alert in self.all_alerts if alert.step is not None), default=None)


def groups(
    alerts: Sequence[HealthAlert], findings: Sequence[Finding], attention: Attention
) -> tuple[Group, ...]:
    """Every alert in one group: not seen first, then the gravest, then the earliest; muted ones last."""
    serious: dict[str, list[HealthAlert]] = {}
    for alert in alerts:
        if alert.severity != "info":
            serious.setdefault(alert.code, []).append(alert)
    found = []
    for finding in findings:
        cause, *codes = finding.codes
        own = serious.pop(cause, [])
        symptoms = [alert for code in dict.fromkeys(codes) for alert in serious.pop(code, [])]
        if own and cause not in attention.muted:
            # A muted symptom goes to the end by itself, where it can be heard again.
            found += [
                _group(None, (alert,), (), attention) for alert in symptoms if alert.code in attention.muted
            ]
            symptoms = [alert for alert in symptoms if alert.code not in attention.muted]
        if own or symptoms:
            found.append(_group(finding, tuple(own or symptoms), tuple(symptoms if own else ()), attention))
    found += [_group(None, (alert,), (), attention) for left in serious.values() for alert in left]
    found += [_group(None, (alert,), (), attention) for alert in alerts if alert.severity == "info"]
    return tuple(sorted(found, key=_order))


def counts(shown: Iterable[Group]) -> dict[Severity, int]:
    """Alerts of each severity that is there, the gravest first; muted ones do not count."""
    found = Counter(alert.severity for group in shown if not group.muted for alert in group.all_alerts)
    return {severity: found[severity] for severity in reversed(SEVERITIES) if found[severity]}


def _group(
    finding: Finding | None,
    own: tuple[HealthAlert, ...],
    symptoms: tuple[HealthAlert, ...],
    attention: Attention,
) -> Group:
    return Group(
        finding,
        own,
        symptoms,
        seen=all(attention.seen(alert) for alert in own),
        muted=own[0].code in attention.muted,
    )


def _order(group: Group) -> tuple[bool, bool, int, float, str]:
    step = group.step
    return (
        group.muted,
        group.seen,
        -SEVERITIES.index(group.severity),
        float("inf") if step is None else step,
        group.first.code,
    )
