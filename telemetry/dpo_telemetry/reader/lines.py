"""From bytes of an event file to events: torn tails, zero bytes and unknown kinds included."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dpo_telemetry import events
from dpo_telemetry.events import AnyEvent

MAX_LINE_BYTES = 1 << 20
"""A longer line is damage: no event of ours comes near it."""


class LineReader:
    """Assembles one event file; counts what it cannot read and goes on after it."""

    def __init__(self) -> None:
        self.offset = 0
        """Bytes taken so far."""
        self.damaged = 0
        """Lines that are no events: torn, zeroed or broken."""
        self.unknown = 0
        """Lines of a kind that this version does not know."""
        self._tail = b""

    def feed(self, data: bytes) -> Iterator[AnyEvent]:
        """Events of the lines that `data` completes."""
        self.offset += len(data)
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        if len(self._tail) > MAX_LINE_BYTES:
            self._tail = b""
            self.damaged += 1
        for line in lines:
            event = self._decode(line)
            if event is not None:
                yield event

    @property
    def unfinished(self) -> bool:
        """Whether bytes without a newline are left: damage once the writer is gone."""
        return bool(self._tail)

    def _decode(self, line: bytes) -> AnyEvent | None:
        # A torn line is followed by zeros or by nothing; what stands behind zeros is a new line.
        _, zeros, rest = line.rpartition(b"\0")
        if zeros:
            self.damaged += 1
            line = rest
        if not line.strip():
            return None
        try:
            event = events.decode(line)
        except (msgspec.MsgspecError, RecursionError):
            self.damaged += 1
            return None
        if event is None:
            self.unknown += 1
        return event
