"""From bytes of an event file to events: torn tails, zero bytes and unknown kinds included."""

from __future__ import annotations

from dataclasses import dataclass, field

from dpo_telemetry import events
from dpo_telemetry.events import MAX_LINE_BYTES, AnyEvent
from dpo_telemetry.reader.steps import MIN_BYTES, STEP_MARK, StepBlocks, StepColumns


@dataclass
class Read:
    """What the lines that a chunk completes are."""

    events: list[AnyEvent] = field(default_factory=list)
    """In the order of their lines, without the steps that became columns."""
    steps: StepColumns | None = None


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
        self._blocks = StepBlocks()

    def feed(self, data: bytes) -> list[AnyEvent]:
        """Events of the lines that `data` completes."""
        found, whole, rest = self._cut(data)
        found += self._events(whole)
        self._extend(rest)
        return found

    def feed_columns(self, data: bytes) -> Read:
        """Like `feed`, with the steps of a large chunk as columns where all of them have the same metrics."""
        found, whole, rest = self._cut(data)
        read = self._columns(whole)
        if read is None:
            read = Read(self._events(whole))
        self._extend(rest)
        return Read(found + read.events, read.steps)

    def _cut(self, data: bytes) -> tuple[list[AnyEvent], bytes, bytes]:
        """The event that `data` completes, the whole lines behind it, and the beginning of another."""
        self.offset += len(data)
        start, end = data.find(b"\n"), data.rfind(b"\n")
        if end < 0:
            return [], b"", data
        self._extend(data[:start])
        event = self._complete()
        return [event] if event else [], data[start + 1 : end], data[end + 1 :]

    def feed_prepared(self, size_bytes: int, steps: StepColumns | None, lines: bytes) -> Read:
        """Whole lines of which the steps are decoded: `size_bytes` of the file, and the other lines.

        Raises:
            ValueError: a line before them is not complete.
        """
        if self.unfinished:
            raise ValueError("decoded lines follow a line that is not complete")
        self.offset += size_bytes
        return Read(self._events(lines), steps)

    def _columns(self, whole: bytes) -> Read | None:
        steps, others = separate(whole, self._blocks)
        return None if steps is None else Read(self._each(others.split(b"\n")), steps)

    def _events(self, whole: bytes) -> list[AnyEvent]:
        """Events of whole lines; all at once where none is anything but an event that is known."""
        if not _has_long_line(whole):
            try:
                return events.decode_all(whole)
            except events.NOT_READABLE:
                pass
        return self._each(whole.split(b"\n"))

    def _each(self, lines: list[bytes]) -> list[AnyEvent]:
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


def separate(whole: bytes, blocks: StepBlocks | None = None) -> tuple[StepColumns | None, bytes]:
    """The steps of whole lines as columns, where that can be had, and the lines that are left."""
    blocks = blocks or StepBlocks()
    if len(whole) < MIN_BYTES or _has_long_line(whole):
        return None, whole
    if (steps := blocks.decode(whole)) is not None:
        return steps, b""
    lines = whole.split(b"\n")
    stepping = [line for line in lines if line.startswith(STEP_MARK)]
    if not stepping or (steps := blocks.decode(b"\n".join(stepping))) is None:
        return None, whole
    return steps, b"\n".join(line for line in lines if not line.startswith(STEP_MARK))


def _has_long_line(whole: bytes) -> bool:
    start = 0
    while len(whole) - start > MAX_LINE_BYTES:
        end = whole.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if end < 0:
            return True
        start = end + 1
    return False
