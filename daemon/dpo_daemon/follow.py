"""Reading a rank's raw output as it grows, line by line."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from dpo_telemetry.rundir.layout import Attempt
from dpo_telemetry.text import printable

READ_BYTES = 1 << 20
POLL_INTERVAL_S = 0.2
MAX_LINE_BYTES = 1 << 20
"""A longer line is handed out in pieces."""

_LINE_END = re.compile(rb"[\r\n]+")
"""A progress bar ends its lines with a carriage return alone."""


class LogReader:
    """Takes what a log grew by; lines come out clean enough for any terminal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._tail = b""
        self._complete: deque[bytes] = deque()

    def lines(self) -> Iterator[str]:
        """Lines that are complete and were not handed out yet; may be broken off and asked for again."""
        while self._complete:
            yield _clean(self._complete.popleft())
        while data := self._read():
            self._offset += len(data)
            *complete, self._tail = _LINE_END.split(self._tail + data)
            if len(self._tail) > MAX_LINE_BYTES:
                complete.append(self._tail)
                self._tail = b""
            self._complete.extend(filter(None, complete))
            while self._complete:
                yield _clean(self._complete.popleft())

    def rest(self) -> Iterator[str]:
        """The last line where it has no end; ask once nobody writes any more."""
        tail, self._tail = self._tail, b""
        if tail:
            yield _clean(tail)

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                return file.read(READ_BYTES)
        except OSError:
            return b""


def launcher_logs(attempt: Attempt) -> list[Path]:
    """What the launchers printed, one log a host; none once a rank has a log of its own."""
    if any(attempt.logs_dir.glob("rank-*.log")):
        return []
    return sorted(attempt.logs_dir.glob("launcher-*.log"))


def whole_log(path: Path) -> Iterator[str]:
    """The lines of a log as far as it reaches."""
    reader = LogReader(path)
    yield from reader.lines()
    yield from reader.rest()


def follow(reader: LogReader, attempt: Attempt) -> Iterator[str]:
    """Lines until the attempt has ended; waits in between.

    Where no rank came to a log of its own, what their launchers printed follows at the end.
    """
    while True:
        ended = attempt.ended()
        yield from reader.lines()
        if ended:
            yield from reader.rest()
            for path in launcher_logs(attempt):
                yield from whole_log(path)
            return
        time.sleep(POLL_INTERVAL_S)


def _clean(line: bytes) -> str:
    return printable(line.decode(errors="replace"))
