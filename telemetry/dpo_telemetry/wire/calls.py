"""One question, one answer: a socket of its own for each, so that nothing waits behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import zmq

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.wire.endpoints import address
from dpo_telemetry.wire.frames import NotAMessageError, pack, unpack
from dpo_telemetry.wire.messages import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, Body, ErrorReply

Reply = TypeVar("Reply", bound=Body)

RECONNECT_MS = 50
RECONNECT_MAX_MS = 1000
RECEIVE_QUEUE = 1000
"""Deltas that wait for a client that sleeps; what comes after them is read later."""


def connect(context: zmq.Context[zmq.Socket[bytes]], kind: int, path: Path) -> zmq.Socket[bytes]:
    """A client's socket; it connects again for ever, and takes no message over the limit."""
    socket = context.socket(kind)
    socket.linger = 0
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    socket.reconnect_ivl, socket.reconnect_ivl_max = RECONNECT_MS, RECONNECT_MAX_MS
    if kind == zmq.DEALER:
        # Requests wait for a connection here, not in a queue that a new keeper would have to answer.
        socket.immediate = 1
    if kind == zmq.SUB:
        socket.rcvhwm = RECEIVE_QUEUE
    socket.connect(address(path))
    return socket


def call(path: Path, request: Body, kind: type[Reply], timeout_s: float) -> Reply:
    """Ask once and wait for the reply.

    Raises:
        TelemetryError: no answer in time, a refusal, or another version of the protocol.
    """
    silence = f"{path}: no keeper answered within {timeout_s:g} s; is it running?"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        socket = connect(context, zmq.DEALER, path)
        socket.sndtimeo = round(timeout_s * 1000)
        try:
            socket.send_multipart(pack(request, id=1))
        except zmq.Again:
            raise TelemetryError(silence) from None
        if not socket.poll(round(timeout_s * 1000)):
            raise TelemetryError(silence)
        frames = socket.recv_multipart()
    finally:
        context.destroy(linger=0)
    return _expect(frames, kind)


def _expect(frames: list[bytes], kind: type[Reply]) -> Reply:
    try:
        _, body = unpack(frames)
    except NotAMessageError as error:
        raise TelemetryError(
            version_problem(error) or f"the keeper's answer is {error.damage}; is it a keeper of dpo-deck?"
        ) from None
    if isinstance(body, ErrorReply):
        raise TelemetryError(body.message)
    if not isinstance(body, kind):
        raise TelemetryError(f"the keeper answered {type(body).__name__}, not {kind.__name__}")
    return body


def version_problem(error: NotAMessageError) -> str:
    """One line when the other side speaks another version; empty for other damage."""
    if error.damage != "version" or error.header is None:
        return ""
    theirs = error.header.protocol
    older = "keeper" if theirs < PROTOCOL_VERSION else "client"
    return f"the keeper speaks protocol {theirs}, this client {PROTOCOL_VERSION}; update the {older}"
