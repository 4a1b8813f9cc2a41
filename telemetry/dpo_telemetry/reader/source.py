"""Where the bytes of a run come from.

A source hands out what grew as chunks (file, offset, bytes); nothing above it knows whether
they were read from a directory or came over the wire.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Literal, Protocol

import msgspec

from dpo_telemetry.reader.steps import StepColumns
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

Link = Literal["live", "stale", "lost", "file"]

MAX_READ_BYTES = 4 << 20
"""Largest chunk: bounds what one poll of one file holds in memory."""

_LOG = re.compile(r"^attempts/\d{3,}/logs/[A-Za-z0-9._-]+\.log$")


class Chunk(msgspec.Struct, frozen=True):
    """Bytes of one file from `offset` on; `file` is relative to the run directory."""

    file: str
    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """Where the next chunk of the file starts."""
        return self.offset + len(self.data)


class Prepared(Chunk, frozen=True):
    """Whole lines of an event file whose steps are decoded; `data` holds the lines of other events."""

    size_bytes: int = 0
    """What the lines take in the file."""
    steps: StepColumns | None = None

    @property
    def end(self) -> int:
        """Where the next chunk of the file starts."""
        return self.offset + self.size_bytes


class Source(Protocol):
    """Something that follows a run."""

    @property
    def link(self) -> Link:
        """How the source stands: a file is read, a keeper is live, stale or lost."""
        ...

    @property
    def problem(self) -> str:
        """Why a keeper cannot be followed, one line; empty when it can, and where there is none."""
        ...

    def poll(self) -> list[Chunk]:
        """What grew since the last poll, in order within each file; empty when nothing did."""
        ...

    def log_files(self) -> dict[str, int]:
        """Raw logs that can be read now, with their sizes in bytes."""
        ...

    def skip_to(self, offsets: Mapping[str, int]) -> None:
        """Go on from there: what lies before was read by other means."""
        ...

    def read_log(self, file: str, start: int, end: int) -> bytes:
        """Bytes of a raw log; logs are read on request only."""
        ...

    def close(self) -> None:
        """Let go of files and sockets."""
        ...


class DirectorySource:
    """Follows a run directory by polling, as NFS and Lustre require.

    While an attempt lives, zero bytes are a page that has not arrived and are not read past;
    once it has ended they are handed out as the damage that they are.
    """

    link: Link = "file"
    problem = ""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._offsets: dict[str, int] = {}

    def poll(self) -> list[Chunk]:
        """Read what grew, at most `MAX_READ_BYTES` a file."""
        return list(self._grown())

    def offsets(self) -> dict[str, int]:
        """How far each file was read."""
        return dict(self._offsets)

    def skip_to(self, offsets: Mapping[str, int]) -> None:
        """Go on from there: what lies before was read by other means."""
        self._offsets.update(offsets)

    def poll_profiles(self) -> Iterator[Chunk]:
        """What grew of the files that say what kind of run it is: `run.json`, profiles and plans."""
        yield from self._read(self.run.run_file.name, settled=True)
        for file in self.files():
            if file.endswith(("/profile.toml", "/plan.json")):
                yield from self._read(file, settled=True)

    def files(self) -> list[str]:
        """The files of all attempts, in the order in which they are read."""
        return [file for attempt in self.run.attempts() for file in self.files_of(attempt)]

    def read_log(self, file: str, start: int, end: int) -> bytes:
        """Bytes of a raw log; empty when `file` does not name a log of this run."""
        if not _LOG.match(file):
            return b""
        return self.read(file, start, end)

    def read(self, file: str, start: int, end: int) -> bytes:
        """Bytes of any file that this source hands out; empty when it is not there."""
        # Opened each time: that is when a network file system looks whether a file grew. This is the hottest
        # place of a monitor of many ranks, so it goes without paths and streams.
        try:
            descriptor = os.open(f"{self.run.path}/{file}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.pread(descriptor, max(0, min(end - start, MAX_READ_BYTES)), start)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def log_files(self) -> dict[str, int]:
        """Raw logs of the run with their sizes in bytes."""
        files = {}
        for attempt in self.run.attempts():
            for path in sorted(attempt.logs_dir.glob("*.log")):
                name = path.relative_to(self.run.path).as_posix()
                with suppress(OSError):
                    if _LOG.match(name):
                        files[name] = path.stat().st_size
        return files

    def close(self) -> None:
        """Nothing is held between polls."""

    def _grown(self) -> Iterator[Chunk]:
        """What grew; a later attempt waits until all of an earlier one was read."""
        yield from self._read(self.run.run_file.name, settled=True)
        attempts = self.run.attempts()
        for attempt in attempts:
            settled = attempt is not attempts[-1] or attempt.ended()
            behind = False
            for file in self.files_of(attempt):
                for chunk in self._read(file, settled):
                    behind |= len(chunk.data) == MAX_READ_BYTES
                    yield chunk
            if behind and settled:
                return

    def files_of(self, attempt: Attempt) -> list[str]:
        """The files of one attempt, in the order in which they are read."""
        base = attempt.path.relative_to(self.run.path).as_posix()
        try:
            names = sorted(path.name for path in attempt.events_dir.iterdir() if path.suffix == ".jsonl")
        except OSError:
            names = []
        exits = sorted(path.name for path in attempt.path.glob("exit-*.json"))
        whole = [f"{base}/{name}" for name in ("profile.toml", "plan.json", *exits)]
        return whole[:2] + [f"{base}/events/{name}" for name in names] + whole[2:]

    def _read(self, file: str, settled: bool) -> Iterator[Chunk]:
        start = self._offsets.get(file, 0)
        data = self.read(file, start, start + MAX_READ_BYTES)
        if not settled and file.endswith(".jsonl"):
            data = _arrived(data)
        if data:
            self._offsets[file] = start + len(data)
            yield Chunk(file, start, data)


def _arrived(data: bytes) -> bytes:
    """The whole lines before the first zero byte; a chunk that no line fits into is taken as it is."""
    zero = data.find(b"\0")
    if zero < 0 and len(data) == MAX_READ_BYTES and b"\n" not in data:
        return data
    return data[: data.rfind(b"\n", 0, zero if zero >= 0 else len(data)) + 1]
