"""Messages to frames and back; what is not a message is named and never raises anything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from dpo_telemetry.wire.messages import (
    KIND_OF,
    KINDS,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    Body,
    Header,
)

Damage = Literal["malformed", "oversized", "unknown", "version"]

_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(Header)
_bodies = {kind: msgspec.msgpack.Decoder(body) for kind, body in KINDS.items()}


class NotAMessageError(ValueError):
    """Frames that cannot be taken."""

    def __init__(self, damage: Damage, header: Header | None = None) -> None:
        super().__init__(damage)
        self.damage: Damage = damage
        self.header = header
        """What could be read of it: whoever speaks another version can be told so."""


def pack(body: Body, *, id: int = 0, run: str = "") -> list[bytes]:
    """The two frames of a message."""
    header = Header(protocol=PROTOCOL_VERSION, kind=KIND_OF[type(body)], id=id, run=run)
    return [_encoder.encode(header), _encoder.encode(body)]


def unpack(frames: Sequence[bytes], *, limit: int = MAX_MESSAGE_BYTES) -> tuple[Header, Body]:
    """Header and body of two frames.

    Raises:
        NotAMessageError: wrong number of frames, too large, no msgpack, another version, an
            unknown kind, or fields that do not fit.
    """
    if sum(map(len, frames)) > limit:
        raise NotAMessageError("oversized")
    if len(frames) != 2:
        raise NotAMessageError("malformed")
    try:
        header = _header.decode(frames[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotAMessageError("malformed") from None
    if header.protocol != PROTOCOL_VERSION:
        raise NotAMessageError("version", header)
    if header.kind not in _bodies:
        raise NotAMessageError("unknown", header)
    try:
        return header, _bodies[header.kind].decode(frames[1])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotAMessageError("malformed", header) from None
