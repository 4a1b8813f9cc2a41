"""What a run holds when it is opened: gigabytes, so several processes decode it, and it is kept decoded.

A stretch of an event file is cut at the ends of lines, so that each can be decoded without the
ones before it. They are handed out in the order in which a source would read them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import msgspec

from dpo_telemetry.reader.decoding import Decoders, Stretch, prepare
from dpo_telemetry.reader.source import Chunk, DirectorySource, Prepared
from dpo_telemetry.reader.steps import STEP_MARK
from dpo_telemetry.rundir.layout import RunDirectory

MIN_BYTES = 32 << 20
"""A smaller run is read before other processes have started."""
STRETCH_BYTES = 8 << 20
MAX_PROCESSES = 4
WAITING = 2
"""Decoded stretches that wait for each process: bounds what is held."""
LINE_BYTES = 1 << 16
"""How far behind a cut the end of its line is looked for."""


class Backlog:
    """The event files of a run up to where they end now; `chunks` hands them out once."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._source = DirectorySource(run)
        self.stretches = [
            stretch
            for attempt in run.attempts()
            for file in self._source.files_of(attempt)
            if file.endswith(".jsonl")
            for stretch in _stretches(run.path, file, ended=attempt.ended())
        ]
        self.total_bytes = sum(stretch.end - stretch.start for stretch in self.stretches)
        self.read_bytes = 0

    @property
    def is_large(self) -> bool:
        """Whether it is worth other processes."""
        return self.total_bytes >= MIN_BYTES

    @property
    def expected_steps(self) -> int:
        """About how many steps rank 0 tells, by the length of its first lines."""
        files = [stretch for stretch in self.stretches if stretch.file.endswith("/rank-00000.jsonl")]
        if not files:
            return 0
        data = self._source.read(files[0].file, files[0].start, files[0].start + LINE_BYTES)
        size = sum(stretch.end - stretch.start for stretch in files)
        return size * data.count(STEP_MARK) // max(1, len(data))

    def offsets(self) -> dict[str, int]:
        """How far each file is handed out when everything was."""
        return self._source.offsets() | {stretch.file: stretch.end for stretch in self.stretches}

    def profiles(self) -> list[Chunk]:
        """Profiles and plans: with them the rules need not start over when all steps are read."""
        return list(self._source.poll_profiles())

    def chunks(self) -> Generator[Prepared, None, None]:
        """Decoded stretches; by this process where no other can be had."""
        done, asked = 0, 1
        # One processor is left to whoever takes what they decode.
        count = max(1, min(MAX_PROCESSES, (os.cpu_count() or 1) - 1))
        try:
            with closing(Decoders(count)) as decoders:
                while done < len(self.stretches):
                    for stretch in self.stretches[asked : done + 1 + WAITING * count]:
                        decoders.ask(stretch)
                        asked += 1
                    # The first is decoded here before the other processes have started.
                    chunk = decoders.answer() if done else prepare(self.stretches[0])
                    done += 1
                    yield self._read(chunk)
        except (OSError, ValueError, msgspec.DecodeError):
            for stretch in self.stretches[done:]:
                yield self._read(prepare(stretch))

    def _read(self, chunk: Prepared) -> Prepared:
        self.read_bytes += chunk.size_bytes
        return chunk


def _stretches(path: Path, file: str, *, ended: bool) -> list[Stretch]:
    """Whole lines only; what follows the last one is left to whoever follows the file.

    So is, while its attempt lives, what follows zero bytes: they are a page that has not arrived.
    """
    found = []
    try:
        with (path / file).open("rb") as stream:
            size, start = os.fstat(stream.fileno()).st_size, 0
            while start < size:
                end = _line_end(stream.fileno(), start + STRETCH_BYTES, size)
                if end <= start:
                    break
                found.append(Stretch(str(path), file, start, end))
                start = end
            if found and not ended:
                last = found.pop()
                data = os.pread(stream.fileno(), last.end - last.start, last.start)
                arrived = data.find(b"\0")
                end = last.end if arrived < 0 else last.start + data.rfind(b"\n", 0, arrived) + 1
                found += [last._replace(end=end)] if end > last.start else []
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
