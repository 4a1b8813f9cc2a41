"""Who is shown and how it stands: run, state, attempt, link; then progress and pace."""

from __future__ import annotations

from textual.content import Content

from dpo_telemetry.figures import duration, number, step_time
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


def header(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """One line: state and run on the left, attempt and keeper on the right."""
    status = snapshot.status
    style = STATE_STYLES.get(status.state, "$primary")
    parts: list[Content | str | tuple[str, str]] = [
        (f"{signs.state} {status.state}", f"bold {style}"),
        "  ",
        (printable(snapshot.name), "bold"),
    ]
    if snapshot.attempt > 1:
        parts.append((f"  attempt {snapshot.attempt}", "$muted"))
    if status.reason and width >= NARROW and status.state not in ("training", "finished"):
        parts.append((f"  {printable(status.reason)}", style))
    left, right = Content.assemble(*parts), link_text(snapshot)
    if snapshot.link in ("lost", "stale") and width - left.cell_length - right.cell_length < 2:
        # Whether the figures are current matters more than the rest of a long name.
        left = left.truncate(max(10, width - right.cell_length - 2), ellipsis=True)
    return [spread(left, right, width)]


def link_text(snapshot: Snapshot) -> Content:
    """Where the data comes from, and its age where it may be old."""
    age = f", last data {duration(snapshot.silent_s)} ago" if snapshot.silent_s is not None else ""
    if snapshot.status.ended and snapshot.link != "live":
        return Content.styled("replay" if snapshot.link == "file" else "keeper ended", "$muted")
    match snapshot.link:
        case "live":
            return Content.styled("keeper live", "$success")
        case "stale":
            return Content.styled(f"keeper silent{age}", "$warning")
        case "lost":
            return Content.styled(f"keeper lost{age}", "bold $error")
    return Content.styled(f"no keeper{age}", "$warning")


def progress(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """One line: a bar, the step, and the pace as far as there is room."""
    share, label = _share(snapshot)
    figures = [label] + [text for text in _pace(snapshot) if text]
    while len(figures) > 1 and width - len("   ".join(figures)) - 2 < max(10, width // 5):
        figures.pop()
    text = "   ".join(figures)
    bar_width = max(0, width - len(text) - 2)
    done = round((share or 0.0) * bar_width)
    return [
        Content.assemble(
            (signs.full * done, "$primary"),
            (signs.empty * (bar_width - done), "$chart-grid"),
            "  ",
            (figures[0], "bold"),
            text[len(figures[0]) :],
        )
    ]


def _share(snapshot: Snapshot) -> tuple[float | None, str]:
    """Progress of the phase while the run loads, of the steps afterwards."""
    phase = snapshot.phase
    if phase is not None and phase.name != "train" and phase.state == "progress" and phase.done is not None:
        unit = f" {printable(phase.unit)}" if phase.unit else ""
        if phase.total:
            share = min(1.0, phase.done / phase.total)
            return share, f"{phase.name} {number(phase.done)}/{number(phase.total)}{unit}  {share:.0%}"
        return None, f"{phase.name} {number(phase.done)}{unit}"
    if not snapshot.max_steps:
        return None, f"step {snapshot.step}"
    share = min(1.0, snapshot.step / snapshot.max_steps)
    return share, f"step {snapshot.step}/{snapshot.max_steps}  {share:.0%}"


def _pace(snapshot: Snapshot) -> list[str]:
    ended = snapshot.status.ended
    return [
        f"{step_time(snapshot.step_time_s)}/step" if snapshot.step_time_s is not None else "",
        f"{duration(snapshot.eta_s)} left" if snapshot.eta_s is not None and not ended else "",
        f"{number(snapshot.tokens_per_s, 3)} tok/s" if snapshot.tokens_per_s is not None else "",
        f"{number(snapshot.pairs_per_s, 3)} pairs/s" if snapshot.pairs_per_s is not None else "",
    ]
