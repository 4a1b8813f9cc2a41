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
    """What is worth copying of any run: its name, where it stands, and the commands that show it again."""
    name = printable(snapshot.name)
    quoted = shlex.quote(name)
    copies = [
        Copy("name of the run", name),
        Copy("command that watches it", f"dpo-tui attach {quoted}"),
        Copy("command that replays it", f"dpo-tui replay {quoted}"),
        Copy("command that diagnoses it", f"dpo-tui replay --headless --json {quoted}"),
        Copy("command that stops it with a checkpoint", f"dpo-daemon stop {quoted}"),
        Copy("step", str(snapshot.step)),
    ]
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
