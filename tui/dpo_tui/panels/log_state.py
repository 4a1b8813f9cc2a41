"""The line above a log: what is shown, how much of it, and what was searched."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content

from dpo_telemetry.figures import size
from dpo_telemetry.text import printable
from dpo_tui.logs.levels import Level
from dpo_tui.logs.sieve import Question
from dpo_tui.views.logs import LogsView

LEVEL_NAMES = {Level.INFO: "infos and graver", Level.WARNING: "warnings and errors", Level.ERROR: "errors"}


@dataclass(frozen=True, slots=True)
class LogState:
    """What the line is made of."""

    view: LogsView
    question: Question
    searched: str
    """The pattern as it was typed."""
    shown: int
    """Lines that passed the filters."""
    matches: int
    current: int | None
    """Which of the matches is marked, from 1."""
    following: bool
    wrapping: bool


def log_state(state: LogState, width: int) -> Content:
    """One line; what says least comes last and is cut first."""
    view, question = state.view, state.question
    parts: list[str | tuple[str, str]] = [(title(view), "bold")]
    if not view.lines:
        return Content.assemble(*parts)
    parts.append(
        ("  following" if state.following else "  paused", "$success" if state.following else "$warning")
    )
    if question.pattern is not None:
        place = f"{state.current} of {state.matches}" if state.current else f"{state.matches}"
        what = f"  {place} {'match' if state.matches == 1 else 'matches'}"
        parts += [(what, "$accent"), (f" of {printable(state.searched, 40)}", "$muted")]
    if question.min_level in LEVEL_NAMES:
        parts.append((f"  {LEVEL_NAMES[question.min_level]}", "$accent"))
    total = len(view.lines)
    parts.append(f"  {state.shown} of {total} lines" if state.shown != total else f"  {total} lines")
    if view.left_out_bytes:
        parts.append((f"  {size(view.left_out_bytes)} before left out", "$warning"))
    if state.wrapping:
        parts.append(("  wrapped", "$muted"))
    return Content.assemble(*parts).truncate(max(1, width), ellipsis=True)


def title(view: LogsView) -> str:
    """Whose log it is."""
    if not view.shown:
        return "no log"
    several = len({file.attempt for file in view.files}) > 1
    attempt = f", attempt {view.shown[0].attempt}" if several else ""
    return (f"all {len(view.shown)} logs" if len(view.shown) > 1 else view.shown[0].label) + attempt
