"""What the screens ask of the receiving thread: written by the app, read by the receiver."""

from __future__ import annotations

from threading import Event
from typing import Literal

from dpo_tui.views.logs import LogChoice

ScreenName = Literal["overview", "metrics", "memory", "alerts", "logs", "config", "timeline", "runs"]

SCREENS: tuple[ScreenName, ...] = (
    "overview", "metrics", "memory", "alerts", "logs", "config", "timeline", "runs",
)  # fmt: skip
"""In the order of their keys, 1 to 8."""


class Wants:
    """Single attributes that are replaced, never changed: no lock is needed."""

    def __init__(self) -> None:
        self.changed = Event()
        """Set where the receiver should look at once; the receiver clears it."""
        self.screen: ScreenName = "overview"
        """The screen in front; only what it shows is prepared."""
        self.log = LogChoice()
        """The log that is read while the log screen is in front."""
        self.memory_place: int | tuple[str, int] | None = None
        """Rank, or host and index of a card, whose memory is shown; None leaves the choice to the view."""
