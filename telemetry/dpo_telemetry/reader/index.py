"""The columns of a run that has ended, kept in the user's cache: it opens at once the next time.

One file a run: arrays of 8-byte numbers, then what they are as JSON. It can always be made again; one
that is not what it should be is not there. What it was made from (sizes and times of the event
files, the profiles, the rules) is in its fingerprint.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import platformdirs

import dpo_telemetry
from dpo_telemetry.cli import APP_NAME
from dpo_telemetry.events import NOT_READABLE
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.reader import blocks
from dpo_telemetry.reader.backlog import Backlog
from dpo_telemetry.reader.blocks import ITEM_BYTES
from dpo_telemetry.reader.source import Prepared

MAGIC = b"dpo-index 2".ljust(16)
MAX_HEAD_BYTES = 64 << 20
KEPT_BYTES = 4 << 30
"""The indexes of runs that were opened longest ago go when all together take more."""
STALE_S = 86_400.0
"""What a window began to write and left so long ago goes too."""


class Head(msgspec.Struct, frozen=True):
    """What the file ends with."""

    fingerprint: str
    alerts: list[HealthAlert]
    """What the rules say of these rows."""
    blocks: list[blocks.Block]


@dataclass(frozen=True)
class Index:
    """What was kept of a run."""

    alerts: list[HealthAlert]
    chunks: list[Prepared]


def load(backlog: Backlog) -> Index | None:
    """What is kept of exactly these files; None where nothing is."""
    with contextlib.suppress(OSError, ValueError, OverflowError, *NOT_READABLE):
        path = _path(backlog)
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        path.touch()
        head, end = _head(data)
        if head.fingerprint == fingerprint(backlog):
            chunks = list(blocks.unpack(head.blocks, data[:end], len(MAGIC)))
            if _covers(chunks, backlog):
                return Index(head.alerts, chunks)
    return None


class IndexWriter:
    """Writes an index while the chunks of a backlog come; none is held for it."""

    def __init__(self, backlog: Backlog) -> None:
        """
        Raises:
            OSError: the cache cannot be written.
        """
        self._path = _path(backlog)
        self._fingerprint = fingerprint(backlog)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._staging = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
        self._file = self._staging.open("wb")
        self._file.write(MAGIC)
        self._blocks: list[blocks.Block] = []

    def add(self, chunk: Prepared) -> None:
        """The next chunk.

        Raises:
            OSError: the cache cannot be written.
        """
        self._blocks.append(blocks.describe(chunk))
        self._file.writelines(blocks.arrays(chunk))

    def finish(self, alerts: Sequence[HealthAlert]) -> None:
        """All chunks were added, and this is what the rules say of them.

        Raises:
            OSError: the cache cannot be written.
        """
        text = msgspec.json.encode(Head(self._fingerprint, list(alerts), self._blocks))
        self._file.write(text + len(text).to_bytes(ITEM_BYTES, "little"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._staging.replace(self._path)
        _drop_oldest(self._path.parent)

    def give_up(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._staging.unlink(missing_ok=True)


def fingerprint(backlog: Backlog) -> str:
    """What an index is made from; another one when any of it changes.

    Raises:
        OSError: a file is gone.
    """
    digest = hashlib.sha256(code_digest())
    for file in sorted({stretch.file for stretch in backlog.stretches}):
        status = (backlog.run.path / file).stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    for attempt in backlog.run.attempts():
        with contextlib.suppress(OSError):
            digest.update((attempt.path / "profile.toml").read_bytes())
    return digest.hexdigest()


@cache
def code_digest() -> bytes:
    """Changes with the rules and the readers, so that no run keeps what older ones said."""
    digest = hashlib.sha256()
    for path in sorted(Path(dpo_telemetry.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


def _path(backlog: Backlog) -> Path:
    name = hashlib.sha256(str(backlog.run.path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return Path(platformdirs.user_cache_dir(APP_NAME)) / "runs" / f"{name[:32]}.index"


def _head(data: memoryview) -> tuple[Head, int]:
    """The header, which stands at the end, and where the arrays before it end."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("not an index of this version")
    size = int.from_bytes(data[-ITEM_BYTES:], "little")
    start = len(data) - ITEM_BYTES - size
    if size > MAX_HEAD_BYTES or start < len(MAGIC):
        raise ValueError("the header is too long")
    return msgspec.json.decode(data[start:-ITEM_BYTES], type=Head), start


def _covers(chunks: list[Prepared], backlog: Backlog) -> bool:
    """Whether the chunks follow each other up to the ends of all files."""
    reached: dict[str, int] = {}
    for chunk in chunks:
        if chunk.offset != reached.get(chunk.file, 0) or chunk.size_bytes < 0:
            return False
        reached[chunk.file] = chunk.end
    return reached == {stretch.file: stretch.end for stretch in backlog.stretches}


def _drop_oldest(folder: Path) -> None:
    for path in folder.glob(".*.index.*"):
        if path.stat().st_mtime < time.time() - STALE_S:
            path.unlink(missing_ok=True)
    kept_bytes = 0
    for path in sorted(folder.glob("*.index"), key=lambda path: path.stat().st_mtime, reverse=True):
        kept_bytes += path.stat().st_size
        if kept_bytes > KEPT_BYTES:
            path.unlink(missing_ok=True)
