"""The receiving side: polls a source, keeps the model, hands out snapshots. Lives in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Source
from dpo_tui.logs.reader import LogReader
from dpo_tui.opening import Opening
from dpo_tui.snapshot import Charts, Snapshot, chart_lines, take
from dpo_tui.views.logs import LogChoice, LogsView
from dpo_tui.views.memory_rows import MemoryRows
from dpo_tui.views.record import RecordTaker
from dpo_tui.wants import Wants

Clock = Callable[[], float]

MUCH_BYTES = 1 << 18
"""Who found so much is behind and looks again at once; less is what a large run writes between two looks."""
OVERVIEW_LINES = 200
OVERVIEW_LOOK_BYTES = 1 << 16


class Receiver:
    """Nobody else touches the model; what leaves is frozen."""

    def __init__(
        self, source: Source, name: str, clock: Clock = time.time, wants: Wants | None = None
    ) -> None:
        self.source = source
        self.name = name
        self.clock = clock
        self.wants = wants or Wants()
        self._opening = Opening(source)
        self.model = RunModel(self._opening.expected_steps)
        self._newest_lines = LogReader(OVERVIEW_LINES, OVERVIEW_LOOK_BYTES)
        self._logs = LogReader()
        self._record = RecordTaker()
        self._memory_rows = MemoryRows()
        self._log_lines: tuple[str, ...] = ()
        self._log_view = LogsView()
        self._charts: Charts = {}
        self._last_data_s: float | None = None

    def receive(self) -> Snapshot:
        """Take what is there now; a chart that did not change is the same object as before.

        Raises:
            TelemetryError: the source cannot be read.
        """
        first = self._last_data_s is None or self._opening.share is not None
        if self._take_chunks():
            self._charts = chart_lines(self.model)
            # What an old run holds was written long ago; what comes later comes now.
            self._last_data_s = self._newest_event_s() if first else self.clock()
        return take(
            self.model,
            self.name,
            now_s=self.clock(),
            link=self.source.link,
            last_data_s=self._last_data_s,
            charts=self._charts,
            log=self._newest_log_lines(),
            record=self._record.take(self.model, self.source, self.wants.screen),
            logs=self._logs.view(self.source, self.wants.log) if self.wants.screen == "logs" else None,
            memory=self._memory_rows.take(self.model),
            memory_place=self.wants.memory_place,
            screen=self.wants.screen,
            reading=self._opening.share,
            problem=self.source.problem,
        )

    def _newest_log_lines(self) -> tuple[str, ...]:
        """What rank 0 printed last, for the overview; the same object until there is more."""
        if self.wants.screen == "overview":
            view = self._newest_lines.view(self.source, LogChoice())
            if view is not self._log_view:
                self._log_view, self._log_lines = view, tuple(line.text for line in view.lines)
        return self._log_lines

    def _take_chunks(self) -> bool:
        """Read until nothing is left; a long file comes in pieces."""
        grown = self._opening.share is not None
        if grown and self._opening.go_on(self.model):
            return True
        behind = True
        while behind and (chunks := self.source.poll()):
            self.model.apply(chunks)
            grown = True
            behind = sum(len(chunk.data) for chunk in chunks) >= MUCH_BYTES
        return grown

    def close(self) -> None:
        """Let go of files, sockets and processes."""
        self._opening.close()
        self.source.close()

    def _newest_event_s(self) -> float | None:
        seen = [process.last_seen_s for process in self.model.processes.values() if process.last_seen_s]
        return max(seen, default=None)
