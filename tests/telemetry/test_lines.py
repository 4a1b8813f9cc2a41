"""Event files as crashes leave them: read as far as they go, and what is damaged is counted."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_telemetry import events
from dpo_telemetry.events import MAX_LINE_BYTES
from dpo_telemetry.reader.lines import LineReader


def beat(step: int) -> bytes:
    return events.encode(events.Heartbeat(v=1, t=1.0, m=1.0, step=step))


def read(*chunks: bytes) -> tuple[list[Any], int, int, bool]:
    """Steps, damaged lines, unknown lines, and whether something is left."""
    reader = LineReader()
    steps = [getattr(event, "step", None) for chunk in chunks for event in reader.feed(chunk)]
    assert reader.offset == sum(map(len, chunks))
    return steps, reader.damaged, reader.unknown, reader.unfinished


def test_a_half_written_line_waits_for_its_rest() -> None:
    line = beat(1)
    assert read(line[:10]) == ([], 0, 0, True)
    assert read(line[:10], line[10:]) == ([1], 0, 0, False)


def test_zero_bytes_hide_the_line_before_them_and_no_line_behind() -> None:
    torn = beat(2)[:10]
    assert read(beat(1) + torn + bytes(100) + beat(3)) == ([1, 3], 1, 0, False)


def test_a_tail_of_zeros_is_unfinished() -> None:
    assert read(beat(1) + bytes(4096)) == ([1], 0, 0, True)


def test_broken_lines_are_counted_and_the_others_read() -> None:
    bad = b"\xff\xfe{\n" + b"[1]\n" + b'{"k":"step"\n' + b'{"k":"a","v":1,"x":' + b"[" * 10_000 + b"\n"
    assert read(beat(1) + bad + beat(2)) == ([1, 2], 4, 0, False)


def test_unknown_kinds_are_counted_apart_from_damage() -> None:
    assert read(b'{"k":"weather","v":2}\n' + beat(1)) == ([1], 0, 1, False)


def test_empty_lines_are_nothing() -> None:
    assert read(b"\n\n \r\n" + beat(1)) == ([1], 0, 0, False)


def test_a_line_that_is_too_long_is_one_damaged_line_however_it_comes() -> None:
    long = b'{"k":"heartbeat","v":1,"t":1,"m":1,"x":"' + b"y" * (3 * MAX_LINE_BYTES) + b'"}\n'
    whole = beat(1) + long + beat(2)
    pieces = [whole[at : at + 100_000] for at in range(0, len(whole), 100_000)]
    assert read(whole) == read(*pieces) == ([1, 2], 1, 0, False)


def test_zeros_behind_a_line_that_is_too_long_begin_a_new_line() -> None:
    whole = b"y" * (2 * MAX_LINE_BYTES) + bytes(64) + beat(1)
    pieces = [whole[at : at + 100_000] for at in range(0, len(whole), 100_000)]
    assert read(whole) == read(*pieces) == ([1], 1, 0, False)


def test_an_endless_line_takes_no_memory() -> None:
    reader, block = LineReader(), b"y" * (1 << 20)
    tracemalloc.start()
    for _ in range(64):
        assert list(reader.feed(block)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MAX_LINE_BYTES


PIECES = st.one_of(
    st.integers(0, 99).map(beat),
    st.sampled_from([b"\n", b"\0", bytes(9), b'{"k":"weather","v":9}\n', b'{"k":"step"}\n', beat(5)[:20]]),
    st.binary(max_size=30),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(0, 400), max_size=6))
def test_how_bytes_are_cut_into_chunks_changes_nothing(data: bytes, cuts: list[int]) -> None:
    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert read(*chunks) == read(data) == read(*(data[at : at + 1] for at in range(len(data))))
