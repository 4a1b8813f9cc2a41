"""A client against real sockets. The publishing side is played by the test, so that it can lose things."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from dpo_telemetry.wire import client as client_module
from dpo_telemetry.wire.client import WireSource
from dpo_telemetry.wire.endpoints import Endpoints, address
from dpo_telemetry.wire.frames import pack, unpack
from dpo_telemetry.wire.messages import (
    PROTOCOL_VERSION,
    TOPIC_DELTA,
    TOPIC_HEARTBEAT,
    Body,
    Delta,
    ErrorReply,
    Heartbeat,
    ReadReply,
    ReadRequest,
    SnapshotReply,
    SnapshotRequest,
)

FILE = "attempts/001/events/rank-00000.jsonl"
Eventually = Callable[..., Any]


class Publisher:
    """Holds one file and answers for it; publishes only what the test says."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.publish = self.context.socket(zmq.PUB)
        self.publish.bind(address(endpoints.publish))
        self.watch = self.context.socket(zmq.ROUTER)
        self.watch.bind(address(endpoints.watch))
        self.truth = b""
        self.reads: list[tuple[int, int]] = []
        self.refuses_next_read = False

    def grow(self, data: bytes, *, published: bool = True) -> None:
        delta = Delta(file=FILE, offset=len(self.truth), data=data)
        self.truth += data
        if published:
            self.publish.send_multipart([TOPIC_DELTA, *pack(delta)])

    def beat(self) -> None:
        beat = Heartbeat(time=0.0, files=1, total_bytes=len(self.truth))
        self.publish.send_multipart([TOPIC_HEARTBEAT, *pack(beat)])

    def answer(self) -> None:
        while self.watch.poll(0):
            sender, *frames = self.watch.recv_multipart()
            header, body = unpack(frames)
            self.watch.send_multipart([sender, *pack(self.reply(body), id=header.id)])

    def reply(self, body: Body) -> Body:
        match body:
            case SnapshotRequest():
                return SnapshotReply(files={FILE: len(self.truth)}, logs={})
            case ReadRequest():
                self.reads.append((body.start, body.end))
                if self.refuses_next_read:
                    self.refuses_next_read = False
                    return ErrorReply(code="not_found", message="not now")
                return ReadReply(file=FILE, start=body.start, data=self.truth[body.start : body.end])
        raise AssertionError(body)


class Follow:
    """Client and publisher taking turns; what the client hands out is put together."""

    def __init__(self, publisher: Publisher, source: WireSource) -> None:
        self.publisher, self.source, self.taken = publisher, source, b""

    def turn(self) -> None:
        for chunk in self.source.poll():
            assert chunk.offset == len(self.taken), "handed out with a gap"
            self.taken += chunk.data
        self.publisher.answer()

    def whole(self) -> bool:
        self.publisher.beat()
        self.turn()
        return self.taken == self.publisher.truth

    def heard(self) -> bool:
        self.publisher.beat()
        self.turn()
        return self.source.link == "live" and self.source._heard is not None


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    with tempfile.TemporaryDirectory(prefix="dpo-", dir="/tmp") as folder:
        yield Endpoints(Path(folder))


@pytest.fixture
def publisher(endpoints: Endpoints) -> Iterator[Publisher]:
    publisher = Publisher(endpoints)
    yield publisher
    publisher.context.destroy(linger=0)


@pytest.fixture
def follow(publisher: Publisher, endpoints: Endpoints) -> Iterator[Follow]:
    with WireSource(endpoints) as source:
        yield Follow(publisher, source)


def test_what_was_there_before_the_client_is_read(follow: Follow, eventually: Eventually) -> None:
    follow.publisher.grow(b"before" * 400_000, published=False)
    eventually(follow.whole, "the file as it was")


def test_growth_arrives_without_a_read(follow: Follow, eventually: Eventually) -> None:
    eventually(follow.heard, "the first heartbeat")
    eventually(follow.whole, "the empty file")
    reads = len(follow.publisher.reads)
    follow.publisher.grow(b"one\n")
    eventually(follow.whole, "the line")
    assert len(follow.publisher.reads) == reads


def test_a_delta_that_was_lost_is_read_before_the_next_is_handed_out(
    follow: Follow, eventually: Eventually
) -> None:
    follow.publisher.grow(b"one\n")
    eventually(follow.whole, "the first line")
    follow.publisher.grow(b"lost\n", published=False)
    follow.publisher.grow(b"three\n")
    eventually(follow.whole, "all three lines")
    assert follow.taken == b"one\nlost\nthree\n"
    assert (4, 15) in follow.publisher.reads


def test_the_last_delta_that_was_lost_is_seen_by_the_next_heartbeat(
    follow: Follow, eventually: Eventually
) -> None:
    follow.publisher.grow(b"one\n")
    eventually(follow.whole, "the first line")
    follow.publisher.grow(b"lost\n", published=False)
    eventually(follow.whole, "the lost line")


def test_a_read_that_was_refused_is_asked_again(follow: Follow, eventually: Eventually) -> None:
    follow.publisher.grow(b"one\n", published=False)
    follow.publisher.refuses_next_read = True
    eventually(follow.whole, "the line, in spite of the refusal")


def test_a_client_that_was_there_first_follows_once_the_keeper_comes(
    endpoints: Endpoints, eventually: Eventually
) -> None:
    with WireSource(endpoints) as source:
        assert source.poll() == []
        assert source.link == "stale"
        publisher = Publisher(endpoints)
        try:
            publisher.grow(b"one\n", published=False)
            eventually(Follow(publisher, source).whole, "the line")
        finally:
            publisher.context.destroy(linger=0)


def test_a_client_goes_on_where_it_stands_when_another_keeper_takes_over(
    endpoints: Endpoints, eventually: Eventually
) -> None:
    with WireSource(endpoints) as source:
        first = Publisher(endpoints)
        follow = Follow(first, source)
        first.grow(b"one\n")
        eventually(follow.whole, "the first line")
        first.context.destroy(linger=0)
        second = follow.publisher = Publisher(endpoints)
        try:
            second.truth = b"one\nwhile nobody served\n"
            eventually(follow.whole, "what came in between")
            assert all(start >= 4 for start, _ in second.reads)
        finally:
            second.context.destroy(linger=0)


def test_a_silent_keeper_is_stale_and_then_lost_and_then_live_again(
    follow: Follow, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "STALE_AFTER_S", 0.3)
    monkeypatch.setattr(client_module, "LOST_AFTER_S", 0.6)
    eventually(follow.heard, "the first heartbeat")
    eventually(lambda: follow.source.link == "stale", "stale")
    eventually(lambda: follow.source.link == "lost", "lost")
    eventually(follow.heard, "live again")


def test_nothing_is_asked_of_a_silent_keeper(
    follow: Follow, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "STALE_AFTER_S", 0.2)
    monkeypatch.setattr(client_module, "REQUEST_TIMEOUT_S", 0.01)
    eventually(follow.heard, "the first heartbeat")
    eventually(lambda: follow.source.link == "stale", "stale")
    while follow.publisher.watch.poll(0):
        follow.publisher.watch.recv_multipart()
    for _ in range(20):
        follow.source.poll()
    assert not follow.publisher.watch.poll(50)


def test_what_is_no_message_is_counted_and_dropped(follow: Follow, eventually: Eventually) -> None:
    eventually(follow.heard, "the first heartbeat")
    follow.publisher.publish.send_multipart([TOPIC_DELTA, b"\xc1", b"\xc1"])
    follow.publisher.publish.send_multipart([TOPIC_DELTA])
    follow.publisher.grow(b"one\n")
    eventually(follow.whole, "the line after the damage")
    assert follow.source.dropped == 2


def test_a_keeper_of_another_version_is_named_in_one_line(follow: Follow, eventually: Eventually) -> None:
    eventually(follow.heard, "the first heartbeat")
    newer = msgspec.msgpack.encode({"protocol": PROTOCOL_VERSION + 1, "kind": "heartbeat"})
    follow.publisher.publish.send_multipart([TOPIC_HEARTBEAT, newer, b"\x80"])
    eventually(lambda: follow.source.poll() or follow.source.problem, "the problem")
    assert "\n" not in follow.source.problem
    assert follow.source.problem.endswith("update the client")
