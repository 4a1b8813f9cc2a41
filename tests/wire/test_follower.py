"""What a client has and still needs, without sockets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dpo_telemetry.reader.source import Chunk
from dpo_telemetry.wire.follower import Follower
from dpo_telemetry.wire.messages import MAX_READ_BYTES, Delta, ReadReply

FILE = "attempts/001/events/rank-00000.jsonl"


def piece(truth: bytes, start: int, end: int) -> Delta:
    return Delta(file=FILE, offset=start, data=truth[start:end])


def test_a_piece_that_starts_after_a_gap_is_not_handed_out_before_the_gap_is_read() -> None:
    truth = b"0123456789"
    follower = Follower()
    assert follower.delta(piece(truth, 0, 3)) == Chunk(FILE, 0, b"012")
    assert follower.delta(piece(truth, 5, 8)) is None
    (request,) = follower.wanted(8)
    assert (request.start, request.end) == (3, 8)
    assert follower.read(ReadReply(file=FILE, start=3, data=truth[3:8])) == Chunk(FILE, 3, b"34567")
    assert follower.delta(piece(truth, 8, 10)) == Chunk(FILE, 8, b"89")


def test_what_was_handed_out_before_is_cut_off() -> None:
    truth = b"0123456789"
    follower = Follower()
    follower.delta(piece(truth, 0, 6))
    assert follower.delta(piece(truth, 0, 6)) is None
    assert follower.delta(piece(truth, 4, 8)) == Chunk(FILE, 6, b"67")


def test_a_long_file_is_read_in_bounded_parts_one_at_a_time() -> None:
    follower = Follower()
    follower.snapshot({FILE: 3 * MAX_READ_BYTES})
    (first,) = follower.wanted(8)
    assert (first.start, first.end) == (0, MAX_READ_BYTES)
    assert follower.wanted(8) == []
    follower.read(ReadReply(file=FILE, start=0, data=bytes(MAX_READ_BYTES)))
    (second,) = follower.wanted(8)
    assert second.start == MAX_READ_BYTES


def test_no_more_reads_are_under_way_than_allowed() -> None:
    follower = Follower()
    follower.snapshot({f"attempts/001/events/rank-{rank:05d}.jsonl": 10 for rank in range(100)})
    assert len(follower.wanted(8)) == 8
    assert follower.wanted(8) == []


def test_a_keeper_that_does_not_have_the_bytes_is_not_asked_for_ever() -> None:
    follower = Follower()
    follower.snapshot({FILE: 10})
    follower.wanted(8)
    assert follower.read(ReadReply(file=FILE, start=0, data=b"")) is None
    assert follower.wanted(8) == []
    assert not follower.agrees(10)


def test_a_heartbeat_that_counts_more_bytes_shows_what_was_missed() -> None:
    follower = Follower()
    follower.delta(Delta(file=FILE, offset=0, data=b"0123"))
    assert follower.agrees(4)
    assert not follower.agrees(5)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_whatever_is_lost_repeated_or_reordered_the_file_comes_out_whole(
    truth: bytes, data: st.DataObject
) -> None:
    """Each round: some pieces arrive in any order, and some of the wanted reads are answered."""
    follower = Follower()
    taken = bytearray()

    def take(chunk: Chunk | None) -> None:
        if chunk is not None:
            assert chunk.offset == len(taken)
            taken.extend(chunk.data)

    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(truth)), st.integers(0, len(truth))), max_size=20))
    for start, end in cuts:
        take(follower.delta(piece(truth, min(start, end), max(start, end))))
        for request in follower.wanted(8):
            if data.draw(st.booleans()):
                part = truth[request.start : request.end][: data.draw(st.integers(1, 50))]
                take(follower.read(ReadReply(file=FILE, start=request.start, data=part)))
            else:
                follower.unreadable(request.file)
    follower.snapshot({FILE: len(truth)})
    while requests := follower.wanted(8):
        for request in requests:
            take(
                follower.read(
                    ReadReply(file=FILE, start=request.start, data=truth[request.start : request.end])
                )
            )
    assert bytes(taken) == truth
    assert follower.agrees(len(truth))
