"""Values and commands that go to the clipboard."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from dpo_telemetry.text import printable
from dpo_tui.snapshot import Snapshot

MAX_ALERTS = 5


@dataclass(frozen=True, slots=True)
class Copy:
    """One thing to copy."""

    label: str
    text: str


def of_run(snapshot: Snapshot) -> list[Copy]:
    """What is worth copying of any run: its name, where it stands, and the commands that show it again.

    A log that is no run of ours can be shown again, but there is nothing to attach to or to stop.
    """
    name = printable(snapshot.name)
    quoted = shlex.quote(name)
    ours = not _is_bare_log(snapshot)
    copies = [Copy("name of the run", name)]
    if ours:
        copies.append(Copy("command that watches it", f"dpo-tui attach {quoted}"))
    copies += [
        Copy("command that replays it", f"dpo-tui replay {quoted}"),
        Copy("command that diagnoses it", f"dpo-tui replay --headless --json {quoted}"),
    ]
    if ours:
        copies.append(Copy("command that stops it with a checkpoint", f"dpo-daemon stop {quoted}"))
    copies.append(Copy("step", str(snapshot.step)))
    copies += [
        Copy(f"last {title}, {line.name}", repr(float(line.values[-1])))
        for title, lines in (snapshot.charts or {}).items()
        for line in lines
        if len(line.values)
    ]
    copies += [
        Copy(f"alert {printable(alert.code)}", f"{printable(alert.code)}: {printable(alert.message)}")
        for alert in snapshot.alerts[:MAX_ALERTS]
    ]
    if snapshot.status.reason:
        copies.append(Copy("reason of the state", printable(snapshot.status.reason)))
    return copies


def _is_bare_log(snapshot: Snapshot) -> bool:
    """It has no attempts and no record of a run, by which it would have an id."""
    return snapshot.link == "file" and not snapshot.attempt and snapshot.run_id == snapshot.name
