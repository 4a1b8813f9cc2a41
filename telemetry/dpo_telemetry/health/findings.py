"""Causes above their consequences: which alerts one cause explains together."""

from __future__ import annotations

from collections.abc import Sequence

from dpo_telemetry.health.alerts import Finding, HealthAlert

_CONSEQUENCES: dict[str, tuple[str, ...]] = {
    "empty_completions": ("nonfinite", "loss_not_falling", "adapter_frozen"),
    "adapter_frozen": ("loss_not_falling",),
    "bf16_rounding": ("loss_not_falling",),
}
"""What each cause explains; the order is the order in which causes are tried."""

_CAUSES: dict[str, str] = {
    "empty_completions": "completions truncated away",
    "adapter_frozen": "adapter does not train",
    "bf16_rounding": "log-probs rounded to bf16",
    "reference_mismatch": "reference is not the starting policy",
    "loss_not_falling": "nothing is learned",
    "nonfinite": "numbers overflow",
}


def findings(alerts: Sequence[HealthAlert]) -> list[Finding]:
    """One finding a cause; alerts that an earlier finding explains make none of their own.

    A loss or gradient that is not finite is never explained away. Alerts for information only
    are no findings.
    """
    serious = [alert for alert in alerts if alert.severity != "info"]
    by_code: dict[str, list[HealthAlert]] = {}
    for alert in serious:
        by_code.setdefault(alert.code, []).append(alert)
    order = [code for code in _CAUSES if code in by_code] + [code for code in by_code if code not in _CAUSES]
    explained: set[str] = set()
    found = []
    for code in order:
        if code in explained:
            continue
        consequences = [other for other in _CONSEQUENCES.get(code, ()) if _explains(by_code.get(other, []))]
        explained.update(consequences)
        found.append(_finding(code, by_code[code][0], [by_code[other][0] for other in consequences]))
    return found


def _explains(alerts: list[HealthAlert]) -> bool:
    return bool(alerts) and not any(
        alert.code == "nonfinite" and alert.severity == "critical" for alert in alerts
    )


def _finding(code: str, cause: HealthAlert, symptoms: list[HealthAlert]) -> Finding:
    text = cause.message[0].upper() + cause.message[1:] + "."
    if symptoms:
        text += " This explains: " + "; ".join(alert.message for alert in symptoms) + "."
    return Finding(
        cause=_CAUSES.get(code, code.replace("_", " ")),
        codes=[code, *(alert.code for alert in symptoms)],
        text=text,
        try_=cause.advice,
    )
