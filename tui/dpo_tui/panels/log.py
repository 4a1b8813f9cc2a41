"""The last lines of the log of rank 0."""

from __future__ import annotations

from textual.content import Content

from dpo_tui.panels.panel import heading
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot


def log(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """A heading and as many of the newest lines as fit; they are printable already."""
    lines = [heading("log", Content.styled("rank 0", "$muted"), width)]
    if not snapshot.log:
        return [*lines, Content.styled("nothing written yet", "$muted")]
    newest = snapshot.log[-max(0, height - 1) :] if height > 1 else ()
    return lines + [Content(line).truncate(width, ellipsis=True).stylize("$secondary") for line in newest]
