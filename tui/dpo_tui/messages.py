"""What the receiver's thread tells the app."""

from __future__ import annotations

from textual.message import Message

from dpo_tui.snapshot import Snapshot
from dpo_tui.wants import Wants


class Received(Message):
    """A newer snapshot is there; in a burst only the newest counts."""

    def __init__(self, snapshot: Snapshot, wants: Wants) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.wants = wants
        """What the receiver was asked: another run has its own."""

    def can_replace(self, message: Message) -> bool:
        """Take the place of a snapshot that was not handled yet."""
        return isinstance(message, Received)
