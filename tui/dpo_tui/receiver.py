"""The receiving side: polls a source, keeps the model, hands out snapshots. Lives in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Source
from dpo_tui.logtail import LogTail
from dpo_tui.snapshot import Charts, Snapshot, chart_lines, take

Clock = Callable[[], float]


class Receiver:
    """Nobody else touches the model; what leaves is frozen."""

    def __init__(self, source: Source, name: str, clock: Clock = time.time) -> None:
        self.source = source
        self.name = name
        self.clock = clock
        self.model = RunModel()
        self._log = LogTail()
        self._log_lines: tuple[str, ...] = ()
        self._charts: Charts = {}
        self._last_data_s: float | None = None

    def receive(self) -> Snapshot:
        """Take what is there now; a chart that did not change is the same object as before.

        Raises:
            TelemetryError: the source cannot be read.
        """
        first = self._last_data_s is None
        if self._take_chunks():
            self._charts = chart_lines(self.model)
            # What an old run holds was written long ago; what comes later comes now.
            self._last_data_s = self._newest_event_s() if first else self.clock()
        if self.model.attempt is not None and self._log.poll(self.source, self.model.attempt.number):
            self._log_lines = self._log.lines()
        return take(
            self.model,
            self.name,
            now_s=self.clock(),
            link=self.source.link,
            last_data_s=self._last_data_s,
            charts=self._charts,
            log=self._log_lines,
        )

    def _take_chunks(self) -> bool:
        """Read until nothing is left; a long file comes in pieces."""
        grown = False
        while chunks := self.source.poll():
            self.model.apply(chunks)
            grown = True
        return grown

    def _newest_event_s(self) -> float | None:
        seen = [process.last_seen_s for process in self.model.processes.values() if process.last_seen_s]
        return max(seen, default=None)
