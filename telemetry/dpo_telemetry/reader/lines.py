"""From bytes of an event file to events: torn tails, zero bytes and unknown kinds included."""

from __future__ import annotations

from dpo_telemetry import events
from dpo_telemetry.events import MAX_LINE_BYTES, AnyEvent


class LineReader:
    """Assembles one event file; counts what it cannot read and goes on after it.

    What it gives does not depend on how the bytes are cut into chunks, and it holds at most one
    line of `MAX_LINE_BYTES`.
    """

    def __init__(self) -> None:
        self.offset = 0
        """Bytes taken so far."""
        self.damaged = 0
        """Lines that are no events: torn, zeroed or broken."""
        self.unknown = 0
        """Lines that this version cannot know: a new kind, or a newer form."""
        self._line = bytearray()
        self._zeroed = False
        self._too_long = False

    def feed(self, data: bytes) -> list[AnyEvent]:
        """Events of the lines that `data` completes."""
        self.offset += len(data)
        first, *more = data.split(b"\n")
        self._extend(first)
        if not more:
            return []
        last = more.pop()
        found = [event] if (event := self._complete()) else []
        found += self._whole(more)
        self._extend(last)
        return found

    def _whole(self, lines: list[bytes]) -> list[AnyEvent]:
        """Events of whole lines; all at once where none is anything but an event that is known."""
        try:
            return events.decode_all(lines)
        except events.NOT_READABLE:
            pass
        found = []
        for line in lines:
            self._extend(line)
            if event := self._complete():
                found.append(event)
        return found

    @property
    def unfinished(self) -> bool:
        """Whether bytes without a newline are left: damage once the writer is gone."""
        return bool(self._line) or self._zeroed or self._too_long

    def _extend(self, part: bytes) -> None:
        # A torn line is followed by zeros or by nothing; what stands behind zeros is a new line.
        if b"\0" in part:
            part = part[part.rindex(b"\0") + 1 :]
            self._line.clear()
            self._zeroed, self._too_long = True, False
        if self._too_long:
            return
        self._line += part
        if len(self._line) > MAX_LINE_BYTES:
            self._line.clear()
            self._too_long = True

    def _complete(self) -> AnyEvent | None:
        line = bytes(self._line)
        self.damaged += self._zeroed + self._too_long
        self._line.clear()
        self._zeroed = self._too_long = False
        if not line or line.isspace():
            return None
        try:
            event = events.decode(line)
        except events.NOT_READABLE:
            self.damaged += 1
            return None
        self.unknown += event is None
        return event
