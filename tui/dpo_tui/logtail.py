"""The raw log of a rank as lines, read a piece at a time through a source."""

from __future__ import annotations

from collections import deque

from dpo_telemetry.reader.source import Source
from dpo_telemetry.text import printable

MAX_LINES = 10_000
PIECE_BYTES = 1 << 18
FIRST_LOOK_BYTES = 1 << 20
"""Of a long log only so much of its end is read when it is opened."""


def log_file(attempt: int, rank: int = 0) -> str:
    """Where the log of a rank lies in a run directory."""
    return f"attempts/{attempt:03d}/logs/rank-{rank:05d}.log"


class LogTail:
    """Follows the log of one rank over attempts."""

    def __init__(self) -> None:
        self._attempt = 0
        self._offset = 0
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=MAX_LINES)

    def lines(self) -> tuple[str, ...]:
        """Printable lines, oldest first; an unfinished one is the last."""
        return (*self._lines, *([_shown(self._rest)] if self._rest else ()))

    def poll(self, source: Source, attempt: int) -> bool:
        """Read what grew in the log of `attempt`; whether there was anything."""
        if attempt != self._attempt:
            self._begin(source, attempt)
        grown = False
        while data := source.read_log(log_file(attempt), self._offset, self._offset + PIECE_BYTES):
            grown = True
            self._offset += len(data)
            *whole, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(map(_shown, whole))
            if len(data) < PIECE_BYTES:
                break
        self._rest = self._rest[-PIECE_BYTES:]
        return grown

    def _begin(self, source: Source, attempt: int) -> None:
        if self._attempt:
            self._lines.append(f"(attempt {attempt})")
        self._attempt = attempt
        self._rest = b""
        self._offset = max(0, _end_of(source, log_file(attempt)) - FIRST_LOOK_BYTES)


def _end_of(source: Source, file: str) -> int:
    """Size of a log, found by looking for its last byte: doubling, then halving."""
    low, high = 0, FIRST_LOOK_BYTES
    while source.read_log(file, high, high + 1):
        low, high = high, high * 2
    while high - low > PIECE_BYTES:
        middle = (low + high) // 2
        if source.read_log(file, middle, middle + 1):
            low = middle
        else:
            high = middle
    return high if low else 0


def _shown(line: bytes) -> str:
    """What a terminal would show of the line: a progress bar's last state."""
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    return printable(text.rpartition("\r")[2])
