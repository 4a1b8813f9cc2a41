"""What a run holds when it is opened: gigabytes, so several processes decode it, and it is kept decoded.

A stretch of an event file is cut at the ends of lines, so that each can be decoded without the
ones before it. They are handed out in the order in which a source would read them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from dpo_telemetry.reader.lines import separate
from dpo_telemetry.reader.source import Chunk, DirectorySource, Prepared
from dpo_telemetry.rundir.layout import RunDirectory

MIN_BYTES = 32 << 20
"""A smaller run is read before other processes have started."""
STRETCH_BYTES = 8 << 20
MAX_PROCESSES = 4
WAITING = 2
"""Decoded stretches that wait for each process: bounds what is held."""
LINE_BYTES = 1 << 16
"""How far behind a cut the end of its line is looked for."""


class Stretch(NamedTuple):
    """Whole lines of an event file, from `start` up to `end`."""

    file: str
    start: int
    end: int


class Backlog:
    """The event files of a run up to where they end now; `chunks` hands them out once."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._source = DirectorySource(run)
        self.stretches = [
            stretch
            for file in self._source.files()
            if file.endswith(".jsonl")
            for stretch in _stretches(run.path, file)
        ]
        self.total_bytes = sum(stretch.end - stretch.start for stretch in self.stretches)
        self.read_bytes = 0

    @property
    def is_large(self) -> bool:
        """Whether it is worth other processes."""
        return self.total_bytes >= MIN_BYTES

    def offsets(self) -> dict[str, int]:
        """How far each file is handed out when everything was."""
        return self._source.offsets() | {stretch.file: stretch.end for stretch in self.stretches}

    def profiles(self) -> list[Chunk]:
        """Profiles and plans: with them the rules need not start over when all steps are read."""
        return list(self._source.poll_profiles())

    def chunks(self) -> Generator[Prepared, None, None]:
        """Decoded stretches; by this process where no other can be had."""
        first, todo = self.stretches[:1], deque(self.stretches[1:])
        waiting: deque[tuple[Stretch, Future[Prepared]]] = deque()
        # One processor is left to whoever takes what they decode.
        processes = max(1, min(MAX_PROCESSES, (os.cpu_count() or 1) - 1))
        try:
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                while first or waiting or todo:
                    while todo and len(waiting) < WAITING * processes:
                        stretch = todo.popleft()
                        waiting.append((stretch, pool.submit(prepare, self.run.path, stretch)))
                    if first:
                        # It is decoded here before the other processes have started.
                        yield self._read(prepare(self.run.path, first.pop()))
                    elif waiting:
                        chunk = waiting[0][1].result()
                        waiting.popleft()
                        yield self._read(chunk)
        except (BrokenProcessPool, OSError):
            for stretch in [*first, *(stretch for stretch, _ in waiting), *todo]:
                yield self._read(prepare(self.run.path, stretch))

    def _read(self, chunk: Prepared) -> Prepared:
        self.read_bytes += chunk.size_bytes
        return chunk


def prepare(path: Path, stretch: Stretch) -> Prepared:
    """Decode a stretch of a file of the run at `path`. Runs in a process of its own.

    Raises:
        OSError: the file cannot be read.
    """
    with (path / stretch.file).open("rb") as file:
        file.seek(stretch.start)
        data = file.read(stretch.end - stretch.start)
    steps, lines = separate(data)
    return Prepared(stretch.file, stretch.start, lines, len(data), steps)


def _stretches(path: Path, file: str) -> list[Stretch]:
    """Whole lines only; what follows the last one is left to whoever follows the file."""
    found = []
    try:
        with (path / file).open("rb") as stream:
            size, start = os.fstat(stream.fileno()).st_size, 0
            while start < size:
                end = _line_end(stream.fileno(), start + STRETCH_BYTES, size)
                if end <= start:
                    break
                found.append(Stretch(file, start, end))
                start = end
    except OSError:
        return []
    return found


def _line_end(descriptor: int, nominal: int, size: int) -> int:
    """The end of the first line that ends at or behind `nominal`; of the last one where none does."""
    at = nominal
    while at < size:
        data = os.pread(descriptor, LINE_BYTES, at)
        if not data:
            break
        if (newline := data.find(b"\n")) >= 0:
            return at + newline + 1
        at += len(data)
    at = size
    while at > 0:
        start = max(0, at - LINE_BYTES)
        newline = os.pread(descriptor, at - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        at = start
    return 0
