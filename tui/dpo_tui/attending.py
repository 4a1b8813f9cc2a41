"""What the app does with the alerts of each snapshot: adds what the user made of them, and tells what is new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from textual.message import Message

from dpo_tui.attention import Attention, load, save
from dpo_tui.notify import Notifier
from dpo_tui.settings import Settings
from dpo_tui.snapshot import Snapshot


class Attended(Message):
    """The user acknowledged or muted something."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention


class Attending:
    """Holds the attention of the run that is shown. Lives in the app's thread."""

    def __init__(self, notifier: Notifier, settings: Callable[[], Settings]) -> None:
        """Args:
        notifier: is handed every snapshot.
        settings: as they are now.
        """
        self._notifier = notifier
        self._settings = settings
        self._run: str | None = None
        self._attention = Attention()

    def receive(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the attention in it."""
        if snapshot.run_id != self._run:
            self._run, self._attention = snapshot.run_id, load(snapshot.run_id)
        attended = replace(snapshot, attention=self._attention)
        settings = self._settings()
        mildest = None if settings.notifications == "off" else settings.notifications
        self._notifier.receive(attended, mildest)
        return attended

    def keep(self, attention: Attention) -> None:
        """From now on, and for the next window."""
        self._attention = attention
        if self._run is not None:
            save(self._run, attention)
