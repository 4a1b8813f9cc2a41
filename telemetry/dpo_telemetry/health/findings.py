"""Causes above their consequences: which alerts one cause explains together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.health.causes import CAUSES, CONSEQUENCES

SHOWN_METRICS = 3


def findings(alerts: Sequence[HealthAlert]) -> list[Finding]:
    """One finding a cause; alerts that an earlier finding explains make none of their own.

    A loss or gradient that is not finite is never explained away. Alerts for information only
    are no findings.
    """
    by_code: dict[str, list[HealthAlert]] = {}
    for alert in alerts:
        if alert.severity != "info":
            by_code.setdefault(alert.code, []).append(alert)
    order = [code for code in CAUSES if code in by_code] + [code for code in by_code if code not in CAUSES]
    explained: set[str] = set()
    found = []
    for code in order:
        if code in explained:
            continue
        consequences = [
            other
            for other in CONSEQUENCES.get(code, ())
            if other not in explained and _explains(by_code.get(other, []))
        ]
        explained.update(consequences)
        found.append(_finding(code, by_code[code], [_together(by_code[other]) for other in consequences]))
    return found


def _explains(alerts: list[HealthAlert]) -> bool:
    return bool(alerts) and not any(
        alert.code == "nonfinite" and alert.severity == "critical" for alert in alerts
    )


def _together(alerts: list[HealthAlert]) -> HealthAlert:
    """The first of one code's alerts, which also says on which other metrics there are more."""
    first, *others = alerts
    if not others:
        return first
    named = ", ".join(alert.metric or alert.code for alert in others[:SHOWN_METRICS])
    more = f" and {len(others) - SHOWN_METRICS} more" if len(others) > SHOWN_METRICS else ""
    return msgspec.structs.replace(first, message=f"{first.message} (as are {named}{more})")


def _finding(code: str, causes: list[HealthAlert], symptoms: list[HealthAlert]) -> Finding:
    told = "; ".join(alert.message for alert in causes)
    text = told[0].upper() + told[1:] + "."
    if symptoms:
        text += " This explains: " + "; ".join(alert.message for alert in symptoms) + "."
    return Finding(
        cause=CAUSES.get(code, code.replace("_", " ")),
        codes=[code, *(alert.code for alert in symptoms)],
        text=text,
        try_=causes[0].advice,
    )
