"""Which way a run is read: through its keeper, and from its directory where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.reader.source import Chunk, DirectorySource, Link, Source
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.wire.client import WireSource
from dpo_telemetry.wire.endpoints import of_run

LOOK_FOR_KEEPER_S = 5.0
"""How often a run without a keeper is asked whether it has one now."""

FindKeeper = Callable[[], Source | None]


def open_run(run: RunDirectory) -> KeeperOrDirectory:
    """Follow a run that may have a keeper on this host.

    Raises:
        TelemetryError: this is no run directory, or its keeper's sockets cannot be trusted.
    """
    run.info()
    of_run(run)
    return KeeperOrDirectory(run, lambda: find_keeper(run))


def find_keeper(run: RunDirectory) -> Source | None:
    """A source at the run's keeper, when one listens in a place that can be trusted."""
    try:
        endpoints = of_run(run)
    except TelemetryError:
        return None
    return WireSource(endpoints) if endpoints is not None else None


class KeeperOrDirectory:
    """Reads from the keeper; from the run directory while it is not heard.

    Both hand out the same bytes of the same files, so what one brought is cut from what the
    other brings next.
    """

    def __init__(self, run: RunDirectory, find: FindKeeper) -> None:
        self.run = run
        self._find = find
        self._looked_s = time.monotonic()
        self._keeper = find()
        self._directory = DirectorySource(run) if self._keeper is None else None
        self._taken: dict[str, int] = {}

    @property
    def link(self) -> Link:
        """How the keeper stands, whether the directory is read meanwhile or not; "file" without one."""
        return "file" if self._keeper is None else self._keeper.link

    @property
    def problem(self) -> str:
        """Why the keeper cannot be followed, one line; empty when it can, and without one."""
        return self._keeper.problem if self._keeper is not None else ""

    def poll(self) -> list[Chunk]:
        """What grew, from whoever has it."""
        self._look_for_keeper()
        chunks = self._keeper.poll() if self._keeper is not None else []
        if self.link != "live":
            if self._directory is None:
                self._directory = DirectorySource(self.run)
                self._directory.skip_to(self._taken)
            chunks += self._directory.poll()
        else:
            self._directory = None
        return [part for chunk in chunks if (part := self._untaken(chunk)) is not None]

    def skip_to(self, offsets: Mapping[str, int]) -> None:
        """Go on from there: what lies before was read by other means."""
        self._taken.update(offsets)
        for reader in (self._directory, self._keeper):
            if reader is not None:
                reader.skip_to(offsets)

    def log_files(self) -> dict[str, int]:
        """Raw logs with their sizes in bytes."""
        reader = self._directory or self._keeper
        return reader.log_files() if reader is not None else {}

    def read_log(self, file: str, start: int, end: int) -> bytes:
        """Bytes of a raw log."""
        reader = self._directory or self._keeper
        return reader.read_log(file, start, end) if reader is not None else b""

    def close(self) -> None:
        """Let go of both."""
        if self._keeper is not None:
            self._keeper.close()

    def _look_for_keeper(self) -> None:
        if self._keeper is None and time.monotonic() - self._looked_s > LOOK_FOR_KEEPER_S:
            self._looked_s = time.monotonic()
            self._keeper = self._find()
            if self._keeper is not None:
                self._keeper.skip_to(self._taken)

    def _untaken(self, chunk: Chunk) -> Chunk | None:
        """The part of a chunk that was not handed out before."""
        taken = self._taken.get(chunk.file, 0)
        end = chunk.end
        if end <= taken:
            return None
        self._taken[chunk.file] = end
        skip = max(0, taken - chunk.offset)
        return Chunk(chunk.file, chunk.offset + skip, chunk.data[skip:]) if skip else chunk
