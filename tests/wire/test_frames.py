"""Messages to frames and back."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_telemetry.wire.frames import NotAMessageError, pack, unpack
from dpo_telemetry.wire.messages import (
    PROTOCOL_VERSION,
    Body,
    ControlRequest,
    Delta,
    Heartbeat,
    HelloRequest,
    ReadRequest,
    SeriesReply,
    SeriesRequest,
    SnapshotReply,
)

BODIES: list[Body] = [
    HelloRequest(client="a test"),
    SnapshotReply(files={"run.json": 106}, logs={}),
    ReadRequest(file="run.json", start=0, end=1 << 40),
    Delta(file="attempts/001/events/rank-00000.jsonl", offset=7, data=b"\x00\xff\n"),
    Heartbeat(time=1.5, files=2, total_bytes=1 << 50),
    SeriesReply(
        metric="loss",
        first_steps=[1],
        last_steps=[2],
        low=[0.5],
        high=[0.5],
        last=[0.5],
        nonfinite=[1],
        offsets={},
    ),
    ControlRequest(action="stop"),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_message_comes_back_as_it_was_sent(body: Body) -> None:
    header, taken = unpack(pack(body, id=7, run="abc"))
    assert (header.protocol, header.id, header.run) == (PROTOCOL_VERSION, 7, "abc")
    assert taken == body


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes_are_a_message_or_are_named_as_none(frames: list[bytes]) -> None:
    with contextlib.suppress(NotAMessageError):
        unpack(frames)


@given(st.sampled_from(BODIES), st.data())
def test_a_damaged_message_is_a_message_or_is_named_as_none(body: Body, data: st.DataObject) -> None:
    frames = pack(body)
    which = data.draw(st.integers(0, 1))
    frame = bytearray(frames[which])
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frames[which] = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    with contextlib.suppress(NotAMessageError):
        unpack(frames)


def test_what_is_too_large_is_not_even_decoded() -> None:
    frames = pack(Delta(file="run.json", offset=0, data=bytes(1000)))
    with pytest.raises(NotAMessageError, match="oversized"):
        unpack(frames, limit=999)


def test_another_version_is_told_from_damage() -> None:
    header = msgspec.msgpack.encode({"protocol": 99, "kind": "hello_request", "id": 3, "new": True})
    with pytest.raises(NotAMessageError, match="version") as caught:
        unpack([header, b"whatever its body is"])
    assert caught.value.header is not None
    assert caught.value.header.id == 3


@pytest.mark.parametrize(
    ("kind", "body", "damage"),
    [
        ("dance_request", {}, "unknown"),
        ("read_request", {"file": "run.json", "start": -1, "end": 5}, "malformed"),
        ("read_request", {"file": "", "start": 0, "end": 5}, "malformed"),
        ("read_request", {"file": "run.json"}, "malformed"),
        ("series_request", {"metric": "loss", "buckets": 1_000_000}, "malformed"),
        ("control_request", {"action": "format the disk"}, "malformed"),
        ("control_request", {"action": "stop", "expires_in_s": 1e12}, "malformed"),
        ("read_request", ["run.json", 0, 5], "malformed"),
    ],
)
def test_fields_out_of_their_bounds_are_no_message(kind: str, body: object, damage: str) -> None:
    header = {"protocol": PROTOCOL_VERSION, "kind": kind, "id": 1}
    with pytest.raises(NotAMessageError, match=damage):
        unpack([msgspec.msgpack.encode(header), msgspec.msgpack.encode(body)])


def test_a_field_that_is_new_is_ignored() -> None:
    header = {"protocol": PROTOCOL_VERSION, "kind": "series_request", "id": 1, "colour": "blue"}
    body = {"metric": "loss", "smoothing": 0.9}
    taken = unpack([msgspec.msgpack.encode(header), msgspec.msgpack.encode(body)])[1]
    assert taken == SeriesRequest(metric="loss")
