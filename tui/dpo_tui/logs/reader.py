"""Reads the raw logs that somebody looks at. Lives in the receiver's thread."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter

from dpo_telemetry.figures import size
from dpo_telemetry.reader.source import Source
from dpo_telemetry.text import printable
from dpo_tui.logs.tail import LogLine, Tail
from dpo_tui.views.logs import LogChoice, LogFile, LogsView

MAX_LINES = 10_000
FIRST_LOOK_BYTES = 1 << 20
"""Of a long log only so much of its end is read when it is opened; of many logs together, half as much."""
LIST_EVERY_S = 1.0
"""How often the sizes of all logs are asked for."""

_FILE = re.compile(r"^attempts/(\d{3,9})/logs/([A-Za-z0-9._-]+)\.log$")
_RANK = re.compile(r"^rank-(\d{1,9})$")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?")


@dataclass
class Book:
    """The lines that are kept, the newest `max_lines`."""

    max_lines: int
    number: int
    lines: deque[tuple[LogLine, int]] = field(default_factory=deque)
    first: int = 0
    left_out_bytes: int = 0

    def add(self, lines: Iterable[tuple[LogLine, int]]) -> None:
        """Append lines with their sizes in bytes."""
        self.lines.extend(lines)
        while len(self.lines) > self.max_lines:
            self.left_out_bytes += self.lines.popleft()[1]
            self.first += 1


class LogReader:
    """Follows one log over attempts, or all ranks of an attempt; hands out the same view until it grows."""

    def __init__(self, max_lines: int = MAX_LINES, first_look_bytes: int = FIRST_LOOK_BYTES) -> None:
        self._max_lines = max_lines
        self._first_look_bytes = first_look_bytes
        self._choice: LogChoice | None = None
        self._files: tuple[LogFile, ...] = ()
        self._listed_s = float("-inf")
        self._tails: dict[str, Tail] = {}
        self._book = Book(max_lines, 0)
        self._view = LogsView()

    def view(self, source: Source, choice: LogChoice) -> LogsView:
        """What is to be shown of `choice` now."""
        opened = choice != self._choice
        listed = opened or time.monotonic() - self._listed_s >= LIST_EVERY_S
        if listed:
            self._listed_s = time.monotonic()
            files = log_files(source.log_files())
            # A keeper that is silent lists nothing, which does not mean that there is nothing.
            self._files = files or self._files
        if opened:
            self._choice = choice
            self._open_book()
        shown = chosen(self._files, choice)
        changed = self._follow(shown) or opened
        if len(shown) == 1 or listed:
            changed |= self._read(source, shown)
        if changed or self._view.files != self._files:
            self._view = self._taken(shown)
        return self._view

    def _open_book(self) -> None:
        self._tails = {}
        self._book = Book(self._max_lines, self._book.number + 1)

    def _follow(self, shown: tuple[LogFile, ...]) -> bool:
        """Open what is new among the files; a new attempt is announced between its lines and the old ones."""
        new = [file for file in shown if file.path not in self._tails]
        if not new:
            return False
        if self._tails and not any(file.path in self._tails for file in shown):
            self._book.add([(LogLine(f"(attempt {new[0].attempt})"), 0)])
            self._book.left_out_bytes += sum(tail.skipped_bytes for tail in self._tails.values())
            self._tails = {}
        for file in new:
            label = file.label if len(shown) > 1 else ""
            self._tails[file.path] = Tail(file.path, label)
        return True

    def _read(self, source: Source, shown: tuple[LogFile, ...]) -> bool:
        look = (
            self._first_look_bytes if len(shown) == 1 else self._first_look_bytes // 2 // max(1, len(shown))
        )
        found: list[list[tuple[LogLine, int]]] = []
        began, any_grown = not self._book.lines, False
        for file in shown:
            tail = self._tails[file.path]
            if len(shown) > 1 and file.size_bytes <= tail.offset:
                continue
            passed_over = self._catch_up(tail, file.size_bytes, look)
            lines, grown = tail.poll(source)
            any_grown |= grown
            found.append(passed_over + lines)
        self._book.add(_by_time(found) if began and len(found) > 1 else chain.from_iterable(found))
        return any_grown

    def _catch_up(self, tail: Tail, size_bytes: int, look: int) -> list[tuple[LogLine, int]]:
        """Begin near the end, and again where a log grows faster than anyone reads; that is told in a line."""
        behind = size_bytes - tail.offset
        if behind <= (4 * self._first_look_bytes if tail.offset else look):
            return []
        began = tail.offset > 0
        tail.catch_up(size_bytes, look)
        return [(LogLine(f"({size(behind - look)} passed over)", source=tail.label), 0)] if began else []

    def _taken(self, shown: tuple[LogFile, ...]) -> LogsView:
        tails = [self._tails[file.path] for file in shown]
        unfinished = [line for tail in tails if (line := tail.unfinished) is not None]
        skipped = sum(tail.skipped_bytes for tail in tails)
        return LogsView(
            files=self._files,
            shown=shown,
            lines=(*map(itemgetter(0), self._book.lines), *unfinished),
            first=self._book.first,
            unfinished=len(unfinished),
            left_out_bytes=self._book.left_out_bytes + skipped,
            book=self._book.number,
        )


def log_files(sizes: dict[str, int]) -> tuple[LogFile, ...]:
    """Raw logs by attempt: ranks by number, then the others by name."""
    found = []
    for path, size_bytes in sizes.items():
        match = _FILE.match(path)
        if match is None:
            continue
        rank = _RANK.match(match[2])
        kind, _, host = match[2].partition("-")
        label = f"rank {int(rank[1])}" if rank else printable(f"{kind} {host}".strip())
        order = (int(match[1]), rank is None, int(rank[1]) if rank else 0, match[2])
        found.append((order, LogFile(path, int(match[1]), label, size_bytes)))
    return tuple(file for _, file in sorted(found, key=itemgetter(0)))


def chosen(files: tuple[LogFile, ...], choice: LogChoice) -> tuple[LogFile, ...]:
    """The files that a choice means; empty where there are none."""
    attempt = choice.attempt or max((file.attempt for file in files), default=0)
    own = [file for file in files if file.attempt == attempt]
    if choice.all_ranks:
        return tuple(own)
    named = [file for file in own if file.name == choice.name]
    return tuple((named or own)[:1])


def _by_time(files: list[list[tuple[LogLine, int]]]) -> list[tuple[LogLine, int]]:
    """Lines of several files by the time that loggers put in front; a line without one stays at the one before."""
    stamped = []
    for lines in files:
        stamp = ""
        for entry in lines:
            found = _STAMP.search(entry[0].text[:60])
            # What a file says first stays first, whatever its clock did.
            stamp = max(stamp, found[0].replace("T", " ").replace(",", ".")) if found else stamp
            stamped.append((stamp, entry))
    stamped.sort(key=itemgetter(0))
    return [entry for _, entry in stamped]


def at_file(file: LogFile, newest: int) -> LogChoice:
    """The choice that reads a file; one of the newest attempt is followed into the next."""
    return LogChoice(file.name, None if file.attempt == newest else file.attempt)
