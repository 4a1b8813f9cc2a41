"""What this user has seen of a run's alerts and does not want to see: kept by run, on this machine."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import platformdirs

from dpo_telemetry.cli import APP_NAME
from dpo_telemetry.events import NOT_READABLE, SEVERITIES, Severity
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.rundir.create import write_atomically

LARGEST_FILE_BYTES = 1 << 20
"""A larger file was not written by us."""

Key = tuple[str, str]
"""Code and metric of an alert: what stays the same while it goes on."""


def key_of(alert: HealthAlert) -> Key:
    """What an alert is known by from one snapshot to the next."""
    return alert.code, alert.metric or ""


@dataclass(frozen=True, slots=True)
class Attention:
    """Alerts that were acknowledged, and codes that are muted."""

    acknowledged: Mapping[Key, Severity] = field(default_factory=dict)
    """How grave each was when it was acknowledged; one that got worse asks for attention again."""
    muted: frozenset[str] = frozenset()

    def seen(self, alert: HealthAlert) -> bool:
        """Whether the alert was acknowledged as grave as it is now."""
        severity = self.acknowledged.get(key_of(alert))
        return severity is not None and SEVERITIES.index(alert.severity) <= SEVERITIES.index(severity)

    def with_seen(self, alerts: tuple[HealthAlert, ...], *, seen: bool) -> Attention:
        """The same with these alerts acknowledged, or not."""
        keys = {key_of(alert): alert.severity for alert in alerts}
        kept = {key: severity for key, severity in self.acknowledged.items() if key not in keys}
        return replace(self, acknowledged=kept | keys if seen else kept)

    def with_muted(self, code: str, *, muted: bool) -> Attention:
        """The same with a code muted, or heard again."""
        return replace(self, muted=self.muted | {code} if muted else self.muted - {code})


UNTOUCHED = Attention()
"""Nothing was acknowledged or muted."""


class _Stored(msgspec.Struct):
    """The file."""

    acknowledged: list[tuple[str, str, Severity]] = []
    muted: list[str] = []


def load(run_id: str) -> Attention:
    """What was kept of a run; nothing where there is no file or it is damaged."""
    try:
        with _file(run_id).open("rb") as file:
            stored = msgspec.json.decode(file.read(LARGEST_FILE_BYTES), type=_Stored)
    except (OSError, *NOT_READABLE):
        return Attention()
    acknowledged = {(code, metric): severity for code, metric, severity in stored.acknowledged}
    return Attention(acknowledged, frozenset(stored.muted))


def save(run_id: str, attention: Attention) -> None:
    """Keep it; where that is not possible it lasts as long as the window."""
    acknowledged = [(code, metric, severity) for (code, metric), severity in attention.acknowledged.items()]
    file = _file(run_id)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, msgspec.json.encode(_Stored(sorted(acknowledged), sorted(attention.muted))))
    except OSError as error:
        logging.getLogger(__name__).warning("%s: cannot be written: %s", file, error.strerror)


def _file(run_id: str) -> Path:
    """Run ids come from files of others and are no names for ours."""
    name = hashlib.sha256(run_id.encode(errors="surrogatepass")).hexdigest()[:32]
    return Path(platformdirs.user_state_dir(APP_NAME)) / "alerts" / f"{name}.json"
