"""Results as people read them: a page for one log, a line each for several."""

from __future__ import annotations

from rich.console import Console

from dpo_telemetry.foreign.open import ReplayedLog
from dpo_tui.headless.list import Listing
from dpo_tui.headless.page import print_page
from dpo_tui.headless.result import Outcome


class Printed:
    """Prints outcomes as they come."""

    def __init__(self, *, several: bool) -> None:
        self._console = Console(soft_wrap=False, highlight=False)
        self._listing = Listing(self._console) if several else None

    def add(self, outcome: Outcome, log: ReplayedLog | None) -> None:
        """The next outcome; of one that could not be read nothing but its count."""
        if self._listing is not None:
            self._listing.add(outcome)
        elif outcome.result is not None and log is not None:
            print_page(self._console, outcome.result, log)

    def finish(self) -> None:
        """The summary of several."""
        if self._listing is not None:
            self._listing.finish()
