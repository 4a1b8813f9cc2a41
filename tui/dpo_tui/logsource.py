"""Anybody's log, in the window: read whole once, then nothing more comes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpo_telemetry.reader.source import Chunk, Link

if TYPE_CHECKING:
    from dpo_telemetry.foreign.open import ReplayedLog


class LogSource:
    """A log that is no run directory: it has rows and nothing else."""

    link: Link = "file"
    problem = ""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> ReplayedLog:
        """The rows and what the rules say of them.

        Raises:
            TelemetryError: it cannot be read, or holds no metrics.
        """
        # The readers of all formats take a tenth of a second to import, and a run needs none of them.
        from dpo_telemetry.foreign.open import open_log

        return open_log(self._path)

    def poll(self) -> list[Chunk]:
        """Nothing: a log that goes on is a matter for `tail`."""
        return []

    def skip_to(self, offsets: object) -> None:
        """Nothing comes behind."""

    def log_files(self) -> dict[str, int]:
        """None beside it."""
        return {}

    def read_log(self, file: str, start: int, end: int) -> bytes:
        """None beside it."""
        return b""

    def close(self) -> None:
        """Nothing is held."""
