"""One raw log, followed from near its end, a piece at a time."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len

from dpo_telemetry.reader.source import Source
from dpo_telemetry.text import printable
from dpo_tui.logs.levels import Level, Levels

PIECE_BYTES = 1 << 18
PIECES_A_POLL = 8
LINE_BYTES = 1 << 13
"""Of a longer line the rest is not shown; it need not end."""


class LogLine(NamedTuple):
    """A line as it is shown."""

    text: str
    """Printable."""
    level: Level = Level.NONE
    source: str = ""
    """Who wrote it, where lines of several files are shown together."""
    cells: int = 0
    """Columns that the text takes."""


class Tail:
    """Follows one file; what it hands out is bounded, whatever the file holds."""

    def __init__(self, file: str, label: str = "") -> None:
        self.file = file
        self.label = label
        self.offset = 0
        """Bytes taken so far."""
        self.skipped_bytes = 0
        """Bytes that were passed over."""
        self._rest = b""
        self._within_line = False
        self._levels = Levels()

    def catch_up(self, size_bytes: int, first_look_bytes: int) -> None:
        """Pass over what lies further than `first_look_bytes` before the end."""
        start = size_bytes - first_look_bytes
        if start > self.offset:
            self.skipped_bytes += start - self.offset
            self.offset, self._rest, self._within_line = start, b"", True

    def poll(self, source: Source) -> tuple[list[tuple[LogLine, int]], bool]:
        """Lines that were completed with their sizes in bytes, and whether anything was read."""
        found: list[tuple[LogLine, int]] = []
        grown = False
        for _ in range(PIECES_A_POLL):
            data = source.read_log(self.file, self.offset, self.offset + PIECE_BYTES)
            if not data:
                break
            grown = True
            self.offset += len(data)
            found += self._take(data)
            if len(data) < PIECE_BYTES:
                break
        return found, grown

    @property
    def unfinished(self) -> LogLine | None:
        """The line that has no end yet, a progress bar for example."""
        if not self._rest:
            return None
        text = _shown(self._rest)
        return LogLine(text, Level.NONE, self.label, cell_len(text))

    def _take(self, data: bytes) -> list[tuple[LogLine, int]]:
        first, *others = data.split(b"\n")
        self._extend(first)
        if not others:
            return []
        found = []
        if self._within_line:
            self.skipped_bytes += 1
        else:
            found.append(self._line(self._rest))
        self._rest, self._within_line = b"", False
        found += map(self._line, others[:-1])
        self._extend(others[-1])
        return found

    def _extend(self, data: bytes) -> None:
        """Keep of an unfinished line what a terminal would show: what stands behind the last return."""
        if self._within_line:
            # A progress bar may have no other line end for hours.
            passed, returned, data = data.rstrip(b"\r").partition(b"\r")
            self.skipped_bytes += len(passed) + len(returned)
            if not returned:
                return
            self._within_line = False
        rest = self._rest + data
        self._rest = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :][:LINE_BYTES]

    def _line(self, data: bytes) -> tuple[LogLine, int]:
        text = _shown(data)
        return LogLine(text, self._levels.of(text), self.label, cell_len(text)), len(data) + 1


def _shown(line: bytes) -> str:
    """What a terminal would show of the line: a progress bar's last state."""
    last = line.rstrip(b"\r").rpartition(b"\r")[2]
    return printable(last[:LINE_BYTES].decode("utf-8", errors="replace"))
