"""A run that is opened: a large one from the index of the last time, or decoded by several processes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.reader import index
from dpo_telemetry.reader.backlog import Backlog
from dpo_telemetry.reader.index import IndexWriter
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Prepared, Source
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.logsource import LogSource

PIECE_S = 0.5
"""So long is read before what is known so far is shown: drawing it costs as much as reading on."""

_log = logging.getLogger(__name__)


@runtime_checkable
class OnDisk(Protocol):
    """A source of a run whose directory this host can read."""

    run: RunDirectory


class Opening:
    """Brings a model to where the files end; small runs, and those that are elsewhere, are left to the source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._log = source if isinstance(source, LogSource) else None
        self._announced = False
        backlog = Backlog(source.run) if isinstance(source, OnDisk) else None
        self._backlog = backlog if backlog is not None and backlog.is_large else None
        self._chunks: Generator[Prepared, None, None] | None = None
        self._keeping: _Keeping | None = None

    @property
    def share(self) -> float | None:
        """How much is read, 0 to 1; None when all is."""
        if self._log is not None:
            return 0.0
        if self._backlog is None:
            return None
        return self._backlog.read_bytes / self._backlog.total_bytes

    @property
    def expected_steps(self) -> int:
        """About how many steps are to come; 0 where nobody knows."""
        return self._backlog.expected_steps if self._backlog is not None else 0

    def go_on(self, model: RunModel) -> bool:
        """Read for a while; whether there is more, and the source is not to be asked yet."""
        if self._log is not None:
            return self._read_log(self._log, model)
        if self._backlog is None:
            return False
        if self._chunks is None:
            profiles = self._backlog.profiles()
            if (found := index.load(self._backlog)) is not None:
                model.restore([*profiles, *found.chunks], found.alerts)
                self._end(self._backlog)
                return False
            model.apply(profiles)
            self._keeping = _Keeping(self._backlog)
            self._chunks = self._backlog.chunks()
        # The first piece is short: something is on the screen before the rest is read.
        ends = time.monotonic() + (PIECE_S if self._backlog.read_bytes else 0.0)
        for chunk in self._chunks:
            model.apply([chunk])
            if self._keeping is not None:
                self._keeping.add(chunk)
            if time.monotonic() > ends:
                return True
        if self._keeping is not None:
            self._keeping.finish(model.rule_alerts())
        self._end(self._backlog)
        return False

    def _read_log(self, source: LogSource, model: RunModel) -> bool:
        """The second time: the window comes first."""
        if not self._announced:
            self._announced = True
            return True
        log = source.read()
        model.adopt(log.series, log.alerts)
        self._log = None
        return False

    def close(self) -> None:
        """Let the other processes go."""
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()
            if self._keeping is not None:
                self._keeping.give_up()

    def _end(self, backlog: Backlog) -> None:
        self._source.skip_to(backlog.offsets())
        self._backlog, self._chunks = None, None


class _Keeping:
    """Keeps the index of a run that has ended; a cache that cannot be written costs only the next opening."""

    def __init__(self, backlog: Backlog) -> None:
        attempts = backlog.run.attempts()
        self._writer: IndexWriter | None = None
        with self._or_none():
            if attempts and attempts[-1].ended():
                self._writer = IndexWriter(backlog)

    def add(self, chunk: Prepared) -> None:
        """The next chunk."""
        with self._or_none():
            if self._writer is not None:
                self._writer.add(chunk)

    def finish(self, alerts: Sequence[HealthAlert]) -> None:
        """In a thread of its own: the disk may take its time, and the window is there."""

        def write() -> None:
            with self._or_none():
                if self._writer is not None:
                    self._writer.finish(alerts)
                    self._writer = None

        # Who quits at once waits for it: a file that is half written would take its place for a day.
        threading.Thread(target=write, name="index").start()

    def give_up(self) -> None:
        """Leave nothing behind."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.give_up()

    @contextmanager
    def _or_none(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _log.warning("the index of a run cannot be kept: %s", error)
            self.give_up()
