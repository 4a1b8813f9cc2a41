"""Who is shown and how it stands: run, state, attempt, link."""

from __future__ import annotations

from textual.content import Content

from dpo_telemetry.figures import duration
from dpo_telemetry.reader.status import State
from dpo_telemetry.text import printable
from dpo_tui.panels.panel import spread
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot

STATE_STYLES: dict[State, str] = {
    "training": "$success",
    "finished": "$success",
    "failed": "$error",
    "hung": "$error",
    "silent": "$error",
    "stopped": "$warning",
}
NARROW = 60
TINY = 22
ROOM_FOR_STATE = 14


def header(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """One line: state and run on the left, attempt and keeper on the right."""
    status = snapshot.status
    style = STATE_STYLES.get(status.state, "$primary")
    state = (f"{state_sign(status.state, signs)} {status.state}", f"bold {style}")
    if width < TINY:
        far = f" {min(1.0, snapshot.step / snapshot.max_steps):.0%}" if snapshot.max_steps else ""
        return [Content.assemble(state, far).truncate(width, ellipsis=True)]
    parts: list[Content | str | tuple[str, str]] = [state, "  ", (printable(snapshot.name), "bold")]
    if snapshot.attempt > 1:
        parts.append((f"  attempt {snapshot.attempt}", "$muted"))
    if status.reason and width >= NARROW and status.state not in ("training", "finished"):
        parts.append((f"  {printable(status.reason)}", style))
    left, right = Content.assemble(*parts), link_text(snapshot, width)
    if snapshot.link in ("lost", "stale") and width - left.cell_length - right.cell_length < 2:
        # Whether the figures are current matters more than the rest of a long name.
        left = left.truncate(max(10, width - right.cell_length - 2), ellipsis=True)
    return [spread(left, right, width)]


def state_sign(state: State, signs: Signs) -> str:
    """A sign that tells a state that is wrong without its colour."""
    match STATE_STYLES.get(state):
        case "$error":
            return signs.critical
        case "$warning":
            return signs.warning
    return signs.state


def link_text(snapshot: Snapshot, width: int) -> Content:
    """Where the data comes from, and its age where it may be old; or why a keeper cannot be followed."""
    age = f", last data {duration(snapshot.silent_s)} ago" if snapshot.silent_s is not None else ""
    if snapshot.status.ended and snapshot.link != "live":
        return Content.styled("replay" if snapshot.link == "file" else "keeper ended", "$muted")
    if snapshot.problem:
        problem = printable(snapshot.problem)
        fits = len(problem) <= width - ROOM_FOR_STATE
        return Content.styled(problem if fits else "keeper of another version", "bold $error")
    match snapshot.link:
        case "live":
            return Content.styled("keeper live", "$success")
        case "stale":
            return Content.styled(f"keeper silent{age}", "$warning")
        case "lost":
            return Content.styled(f"keeper lost{age}", "bold $error")
    return Content.styled(f"no keeper{age}", "$warning")
