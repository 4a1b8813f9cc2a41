"""One event of a TensorBoard file, a protobuf message, taken apart.

Source: tensorboard/compat/proto: event.proto, summary.proto, tensor.proto, types.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

Span = tuple[int, int]
"""First byte and the one behind the last."""

_EVENT_TIME, _EVENT_STEP, _EVENT_SUMMARY = 1, 2, 5
_SUMMARY_VALUE = 1
_VALUE_TAG, _VALUE_SIMPLE, _VALUE_TENSOR = 1, 2, 8
_TENSOR_DTYPE, _TENSOR_CONTENT, _TENSOR_FLOATS, _TENSOR_DOUBLES, _TENSOR_STRINGS = 1, 4, 5, 6, 8
_CONTENT_TYPES = {1: ("<f4", 4), 2: ("<f8", 8), 3: ("<i4", 4), 9: ("<i8", 8), 19: ("<f2", 2)}
"""By tensor type: numpy's name and bytes."""


@dataclass
class Scalar:
    """One number: its name, and where its bytes stand."""

    tag: str
    span: Span
    dtype: str


@dataclass
class Event:
    """What an event holds; spans are places in its payload."""

    time: Span | None = None
    step: Span | None = None
    """Absent at step 0."""
    values: int = 0
    """Named values of any kind."""
    scalars: list[Scalar] = field(default_factory=list)
    texts: list[tuple[str, bytes]] = field(default_factory=list)
    """Names and contents of texts."""

    @property
    def is_one_scalar(self) -> bool:
        """Whether it holds one number and nothing else."""
        return self.values == len(self.scalars) == 1


def parse(data: bytes) -> Event:
    """Take an event apart.

    Raises:
        ValueError: it is no protobuf message.
    """
    event = Event()
    for number, wire, start, end in _fields(data, 0, len(data)):
        if (number, wire) == (_EVENT_TIME, 1):
            event.time = (start, end)
        elif (number, wire) == (_EVENT_STEP, 0):
            event.step = (start, end)
        elif (number, wire) == (_EVENT_SUMMARY, 2):
            for inner, inner_wire, first, last in _fields(data, start, end):
                if (inner, inner_wire) == (_SUMMARY_VALUE, 2):
                    event.values += 1
                    _value(data, first, last, event)
        else:
            event.values += 1
    return event


def varint(data: bytes, start: int, end: int) -> int:
    """A signed 64-bit number in protobuf's variable length."""
    value = 0
    for shift, at in enumerate(range(start, end)):
        value |= (data[at] & 0x7F) << (7 * shift)
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _value(data: bytes, start: int, end: int, event: Event) -> None:
    tag = ""
    for number, wire, first, last in _fields(data, start, end):
        if (number, wire) == (_VALUE_TAG, 2):
            tag = data[first:last].decode("utf-8", "replace")
        elif (number, wire) == (_VALUE_SIMPLE, 5):
            event.scalars.append(Scalar(tag, (first, last), "<f4"))
        elif (number, wire) == (_VALUE_TENSOR, 2):
            _tensor(data, first, last, tag, event)


def _tensor(data: bytes, start: int, end: int, tag: str, event: Event) -> None:
    dtype = 0
    for number, wire, first, last in _fields(data, start, end):
        size = last - first
        if (number, wire) == (_TENSOR_DTYPE, 0):
            dtype = varint(data, first, last)
        elif number == _TENSOR_FLOATS and size == 4:
            event.scalars.append(Scalar(tag, (first, last), "<f4"))
        elif number == _TENSOR_DOUBLES and size == 8:
            event.scalars.append(Scalar(tag, (first, last), "<f8"))
        elif (number, wire) == (_TENSOR_CONTENT, 2) and size == _CONTENT_TYPES.get(dtype, ("", -1))[1]:
            event.scalars.append(Scalar(tag, (first, last), _CONTENT_TYPES[dtype][0]))
        elif (number, wire) == (_TENSOR_STRINGS, 2):
            event.texts.append((tag, data[first:last]))


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and span of the content of each field."""
    while at < end:
        key_end = _varint_end(data, at, end)
        key = varint(data, at, key_end)
        number, wire = key >> 3, key & 7
        start = key_end
        if wire == 0:
            at = _varint_end(data, start, end)
        elif wire == 1:
            at = start + 8
        elif wire == 5:
            at = start + 4
        elif wire == 2:
            length_end = _varint_end(data, start, end)
            length = varint(data, start, length_end)
            start, at = length_end, length_end + length
            if length < 0:
                raise ValueError("a field of negative length")
        else:
            raise ValueError(f"wire type {wire}")
        if at > end:
            raise ValueError("a field ends behind its message")
        yield number, wire, start, at


def _varint_end(data: bytes, at: int, end: int) -> int:
    for place in range(at, min(end, at + 10)):
        if data[place] < 0x80:
            return place + 1
    raise ValueError("a number without an end")
