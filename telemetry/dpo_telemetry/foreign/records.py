"""The framing of TensorBoard's event files: length, its checksum, payload, its checksum.

Source: TFRecord (tensorflow/core/lib/io/record_writer.h). Checksums are CRC-32C (RFC 3720,
appendix B.4), rotated and shifted by a constant. A CRC of texts of one length is linear over
GF(2): it is a constant XOR one table entry for each byte, which numpy looks up for many records
at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from struct import Struct

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]

HEADER_BYTES, FOOTER_BYTES = 12, 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
MAX_RECORD_BYTES = 1 << 20
"""Longer records hold images and graphs; they are passed over."""
MAX_PAYLOAD_BYTES = 1024
"""An event of one number is shorter; no checksums are made of longer ones."""
_LENGTH = Struct("<Q")
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8


@dataclass(frozen=True)
class Records:
    """Payloads of complete records within a block of bytes."""

    data: Bytes
    starts: Places
    lengths: Places


class RecordReader:
    """Cuts bytes into records; stops where the framing is damaged, for nothing says where it goes on."""

    def __init__(self) -> None:
        self.damaged = False
        """Whether a checksum of a length was wrong: what follows is lost."""
        self._rest = b""
        self._skip = 0

    @property
    def torn(self) -> bool:
        """Whether the bytes ended within a record."""
        return bool(self._rest) or self._skip > 0

    def feed(self, blocks: Iterator[bytes]) -> Iterator[Records]:
        """Records block by block."""
        for block in blocks:
            if self._skip >= len(block):
                self._skip -= len(block)
                continue
            data = self._rest + block[self._skip :]
            self._skip = 0
            lengths, end = _walk(data)
            starts = np.cumsum(lengths + FRAME_BYTES) - lengths - FOOTER_BYTES
            records = Records(np.frombuffer(data, np.uint8), starts, lengths)
            good = _good_headers(records)
            if good < len(starts):
                self.damaged = True
                yield Records(records.data, records.starts[:good], records.lengths[:good])
                return
            yield records
            self._rest = data[end:]
            if len(self._rest) >= HEADER_BYTES and not self._begins_record():
                return

    def _begins_record(self) -> bool:
        """Whether what is left begins with a header; a record too long to keep is passed over."""
        self.damaged = not is_header(self._rest)
        size = _LENGTH.unpack_from(self._rest)[0] + FRAME_BYTES
        if size > MAX_RECORD_BYTES and not self.damaged:
            self._skip, self._rest = max(0, size - len(self._rest)), self._rest[size:]
        return not self.damaged


def is_header(head: bytes) -> bool:
    """Whether bytes begin with the header of a record: a length and its checksum."""
    if len(head) < HEADER_BYTES:
        return False
    length = np.frombuffer(head[:8], np.uint8).reshape(1, 8)
    return int(checksums(length, range(0))[0]) == int.from_bytes(head[8:12], "little")


def checksums(texts: Bytes, varying: Iterable[int]) -> Words:
    """Masked CRC-32C of each row of `texts`, shape (n, length), n > 0.

    Rows differ at most at the places `varying`.
    """
    tables, length = _tables(), texts.shape[1]
    alike = np.ones(length, np.bool_)
    alike[list(varying)] = False
    places = np.flatnonzero(alike)
    start = np.bitwise_xor.reduce(tables[length - 1 - places, texts[0, places]], initial=_constant(length))
    crc = np.full(len(texts), start, np.uint32)
    for place in np.flatnonzero(~alike):
        crc ^= tables[length - 1 - place][texts[:, place]]
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)


def payloads(records: Records, starts: Places, length: int) -> tuple[Bytes, Words]:
    """Payloads of one length, shape (n, length), and the checksums that follow them, shape (n,)."""
    texts = _windows(records.data, length + FOOTER_BYTES)[starts]
    return texts[:, :length], np.ascontiguousarray(texts[:, length:]).view("<u4").ravel()


def _walk(data: bytes) -> tuple[Places, int]:
    """Lengths of the payloads of the complete records, and where the last of them ends."""
    lengths: list[int] = []
    at, last, read = 0, len(data) - HEADER_BYTES, _LENGTH.unpack_from
    while at <= last:
        (length,) = read(data, at)
        at += FRAME_BYTES + length
        lengths.append(length)
    if at > len(data):
        at -= FRAME_BYTES + lengths.pop()
    return np.array(lengths, np.int64), at


def _good_headers(records: Records) -> int:
    """How many records there are before the first whose length has a wrong checksum."""
    if not len(records.starts):
        return 0
    headers = _windows(records.data, HEADER_BYTES)[records.starts - HEADER_BYTES]
    lengths = headers[:, :8]
    varying = np.flatnonzero((lengths != lengths[0]).any(axis=0))
    same = checksums(lengths, varying) == np.ascontiguousarray(headers[:, 8:]).view("<u4").ravel()
    return len(same) if same.all() else int(np.argmin(same))


def _windows(data: Bytes, length: int) -> Bytes:
    return np.lib.stride_tricks.sliding_window_view(data, length)


@cache
def _tables() -> Words:
    """What a byte adds to the CRC when so many bytes follow it, shape (MAX_PAYLOAD_BYTES, 256)."""
    tables = np.empty((MAX_PAYLOAD_BYTES, 256), np.uint32)
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = (crc >> np.uint32(1)) ^ (crc & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    tables[0] = crc
    for after in range(1, MAX_PAYLOAD_BYTES):
        crc = tables[after] = (crc >> np.uint32(8)) ^ tables[0][crc & np.uint32(0xFF)]
    return tables


@cache
def _constant(length: int) -> np.uint32:
    """CRC of `length` zero bytes."""
    crc, first = 0xFFFFFFFF, _tables()[0].tolist()
    for _ in range(length):
        crc = (crc >> 8) ^ first[crc & 0xFF]
    return np.uint32(crc ^ 0xFFFFFFFF)
