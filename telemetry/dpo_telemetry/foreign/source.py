"""The bytes of a log: a file or standard input, decompressed, as UTF-8, block by block."""

from __future__ import annotations

import codecs
import gzip
import os
import select
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import BinaryIO, cast

from dpo_telemetry.errors import TelemetryError

STANDARD_INPUT = Path("-")
BLOCK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
"""What the format is found out from."""
WRITER_WAIT_S = 3.0
"""How long a named pipe may be without a writer: a shell starts both ends at about the same time."""

_GZIP = b"\x1f\x8b"
_UTF8_MARK = codecs.BOM_UTF8


class Source:
    """One pass over the bytes of a log; what is already read of it stays at hand as `head`."""

    def __init__(self, path: Path, blocks: Iterator[bytes]) -> None:
        self.path = path
        self.torn = False
        """Whether compressed data ended or broke before its end."""
        self._rest = _unwrapped(blocks, self)
        head = bytearray()
        for block in self._rest:
            head += block
            if len(head) >= HEAD_BYTES:
                break
        self._first = bytes(head).removeprefix(_UTF8_MARK)
        self.head = self._first[:HEAD_BYTES]
        self.head_is_all = len(self._first) < HEAD_BYTES

    def blocks(self) -> Iterator[bytes]:
        """All bytes from the beginning; may be asked for once."""
        first, self._first = self._first, b""
        yield first
        yield from self._rest

    def whole(self, limit_bytes: int) -> bytes:
        """All bytes at once.

        Raises:
            TelemetryError: there are more than `limit_bytes`.
        """
        data = bytearray()
        for block in self.blocks():
            data += block
            if len(data) > limit_bytes:
                raise TelemetryError(
                    f"{self.path}: is larger than {limit_bytes >> 20} MiB, the most that is read of this format"
                )
        return bytes(data)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """A file by its path, a pipe (`<(zcat train.log.gz)`), or standard input for `-`.

    Raises:
        OSError: it cannot be opened or read.
        TelemetryError: it is a device, or a pipe that nobody writes to; or standard input is closed.
    """
    if path == STANDARD_INPUT:
        # Python has no such object where the shell closed it: `<&-`.
        if sys.stdin is None:
            raise TelemetryError(f"{path}: standard input is closed")
        yield Source(path, _read(sys.stdin.buffer))
        return
    # Opened to wait, a pipe without a writer would never be open.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as stream:
        kind = os.fstat(stream.fileno()).st_mode
        if stat.S_ISBLK(kind) or (stat.S_ISCHR(kind) and not stream.isatty()):
            raise TelemetryError(f"{path}: is a device, not a log")
        first = _first_of_pipe(stream.fileno(), path) if stat.S_ISFIFO(kind) else b""
        os.set_blocking(stream.fileno(), True)
        yield Source(path, chain([first] if first else [], _read(cast(BinaryIO, stream))))


def _first_of_pipe(pipe: int, path: Path) -> bytes:
    """What a pipe holds already, nothing where its writer is silent so far.

    Raises:
        TelemetryError: there is no writer, and none comes.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    end = monotonic() + WRITER_WAIT_S
    while not poll.poll(50):
        try:
            if first := os.read(pipe, BLOCK_BYTES):
                return first
        except BlockingIOError:
            return b""
        if monotonic() > end:
            raise TelemetryError(f"{path}: is a named pipe, and nobody writes to it")
    return b""


def _read(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(BLOCK_BYTES):
        yield block


def _unwrapped(blocks: Iterator[bytes], source: Source) -> Iterator[bytes]:
    first, blocks = _peeked(blocks)
    if first.startswith(_GZIP):
        first, blocks = _peeked(_gunzipped(blocks, source))
    encoding = _utf16(first)
    return _transcoded(blocks, encoding) if encoding else blocks


def _peeked(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """At least some hundred bytes where there are as many, and all blocks with them."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= 512:
            break

    def whole() -> Iterator[bytes]:
        if first:
            yield first
        yield from blocks

    return first, whole()


def _gunzipped(blocks: Iterator[bytes], source: Source) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=cast(BinaryIO, _Stream(blocks))) as stream:
        try:
            while block := stream.read1(BLOCK_BYTES):
                yield block
        except (EOFError, zlib.error, gzip.BadGzipFile):
            source.torn = True


class _Stream:
    """Blocks as a file that can only be read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._block, self._at = blocks, b"", 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._at == len(self._block):
            self._block, self._at = next(self._blocks, b""), 0
        data = self._block[self._at : self._at + size]
        self._at += len(data)
        return data


def _utf16(head: bytes) -> str | None:
    """PowerShell's `>` writes UTF-16: with a mark, or known by every other byte being zero."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[:512:2], head[1:512:2]
    if len(odd) < 4:
        return None
    if odd.count(0) > 0.9 * len(odd) and even.count(0) < 0.1 * len(even):
        return "utf-16-le"
    if even.count(0) > 0.9 * len(even) and odd.count(0) < 0.1 * len(odd):
        return "utf-16-be"
    return None


def _transcoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")
