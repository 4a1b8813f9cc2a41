"""Tells the terminal that an alert rose or that the run ended, so that it can tell whoever is elsewhere.

OSC 9 is what most terminals show as a notification (iTerm2, Ghostty, kitty, WezTerm, Windows
Terminal); rxvt-unicode, foot, Konsole and those made of VTE know OSC 777. Terminals that know
neither ignore both, and the bell marks the window in all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dpo_telemetry.events import SEVERITIES, Severity
from dpo_telemetry.reader.status import State
from dpo_telemetry.text import printable
from dpo_tui.attention import Key, key_of
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.alerts import Group, groups

BELL = "\a"
SETTLED_S = 3.0
"""A window is filled within this once the log is read; what is there by then was there before it opened."""
APART_S = 10.0
"""Seconds from one notification to the next; what comes meanwhile is told together."""
LONGEST_TITLE = 80
LONGEST_BODY = 200

KNOW_OSC_777 = ("rxvt", "foot", "konsole", "vte", "gnome")
"""How `TERM` begins, or `TERM_PROGRAM`, where OSC 777 is the sequence that is known."""
KNOW_NO_OSC = ("", "dumb", "linux", "unknown", "vt100", "ansi")
"""Values of `TERM` of terminals that might print the text of an OSC sequence."""
WORTH_TELLING: frozenset[State] = frozenset({"finished", "failed", "stopped", "hung"})


@dataclass(frozen=True, slots=True)
class Note:
    """One notification, not yet made safe for a terminal."""

    title: str
    body: str
    severity: Severity


def sequence(note: Note, environment: Mapping[str, str]) -> str:
    """What to write to the terminal of this environment: a notification where it may know one, and the bell.

    Text is stripped of all that could steer a terminal: escape sequences, control characters, and
    the semicolons that separate the fields of OSC 777.
    """
    term = environment.get("TERM", "").lower()
    if term in KNOW_NO_OSC:
        return BELL
    title, body = printable(note.title, LONGEST_TITLE), printable(note.body, LONGEST_BODY)
    program = environment.get("TERM_PROGRAM", "").lower()
    multiplexed = "TMUX" in environment or "STY" in environment
    if not multiplexed and (
        term.startswith(KNOW_OSC_777)
        or program.startswith(KNOW_OSC_777)
        or {"VTE_VERSION", "KONSOLE_VERSION"} & environment.keys()
    ):
        text = f"\x1b]777;notify;{title.replace(';', ',')};{body.replace(';', ',')}{BELL}"
    else:
        text = f"\x1b]9;{title}: {body}{BELL}"
    if "TMUX" in environment:
        text = "\x1bPtmux;" + text.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    elif "STY" in environment:
        text = f"\x1bP{text}\x1b\\"
    return text + BELL


class Notifier:
    """Watches snapshots for alerts that rise and for the end of the run."""

    def __init__(self, tell: Callable[[Note], None], *, clock: Callable[[], float] = time.time) -> None:
        """Args:
        tell: shows a note; called from `receive`.
        clock: seconds.
        """
        self._tell = tell
        self._clock = clock
        self._run: str | None = None
        self._opened_s = 0.0
        self._was_reading = False
        self._told_s: float | None = None
        self._known: dict[Key, Severity] = {}
        self._state: State | None = None
        self._risen: set[Key] = set()
        self._ended = False

    def receive(self, snapshot: Snapshot, mildest: Severity | None = "warning") -> None:
        """Take the next snapshot; alerts milder than `mildest` are not told, None tells nothing at all."""
        now_s = self._clock()
        if snapshot.run_id != self._run:
            self._start(snapshot.run_id, now_s)
        if snapshot.reading is not None or self._was_reading:
            self._opened_s = now_s
        self._was_reading = snapshot.reading is not None
        if now_s - self._opened_s < SETTLED_S:
            self._known = {key_of(alert): alert.severity for alert in snapshot.alerts}
            self._state = snapshot.status.state
            return
        self._compare(snapshot)
        if mildest is None:
            self._risen.clear()
            self._ended = False
        elif self._told_s is None or now_s - self._told_s >= APART_S:
            note = self._note(snapshot, mildest)
            self._risen.clear()
            self._ended = False
            if note is not None:
                self._told_s = now_s
                self._tell(note)

    def _start(self, run_id: str, now_s: float) -> None:
        self._run, self._opened_s, self._was_reading = run_id, now_s, False
        self._known, self._state = {}, None
        self._risen.clear()
        self._ended = False

    def _compare(self, snapshot: Snapshot) -> None:
        for alert in snapshot.alerts:
            key, before = key_of(alert), self._known.get(key_of(alert))
            if before is None or SEVERITIES.index(alert.severity) > SEVERITIES.index(before):
                self._known[key] = alert.severity
                self._risen.add(key)
        state = snapshot.status.state
        if state != self._state:
            self._ended = state in WORTH_TELLING
            self._state = state

    def _note(self, snapshot: Snapshot, mildest: Severity) -> Note | None:
        """All that is to be told, in one note; None when that is nothing."""
        risen = [
            alert
            for alert in snapshot.alerts
            if key_of(alert) in self._risen
            and alert.code not in snapshot.attention.muted
            and SEVERITIES.index(alert.severity) >= SEVERITIES.index(mildest)
        ]
        causes = [
            group
            for group in groups(snapshot.alerts, snapshot.findings, snapshot.attention)
            if not group.muted and any(alert in risen for alert in group.all_alerts)
        ]
        parts = [_end(snapshot)] if self._ended else []
        if causes:
            parts.append(_cause(causes[0]) + (f", and {len(causes) - 1} more" if len(causes) > 1 else ""))
        if not parts:
            return None
        grave = any(group.severity == "critical" for group in causes)
        failed = self._ended and snapshot.status.state in ("failed", "hung")
        severity: Severity = "critical" if grave or failed else "warning" if causes else "info"
        return Note(f"dpo-tui {snapshot.name}", "; ".join(parts), severity)


def _end(snapshot: Snapshot) -> str:
    reason = f" ({snapshot.status.reason})" if snapshot.status.reason else ""
    return f"{snapshot.status.state} at step {snapshot.step}{reason}"


def _cause(group: Group) -> str:
    return f"{group.severity}: {group.title}: {group.first.message}"
