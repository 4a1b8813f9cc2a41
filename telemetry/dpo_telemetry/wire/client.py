"""A keeper's run as a source: the same chunks as from the directory, wherever it lies.

ZeroMQ's Clone pattern over byte offsets: subscribe first, then ask for a snapshot, then read
what is missing. A keeper that is restarted publishes the same files at the same offsets, so
the client goes on where it stands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import zmq

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.events import Action
from dpo_telemetry.reader.source import Chunk, Link
from dpo_telemetry.wire.calls import RECEIVE_QUEUE, call, connect, version_problem
from dpo_telemetry.wire.endpoints import Endpoints
from dpo_telemetry.wire.follower import Follower
from dpo_telemetry.wire.frames import NotAMessageError, pack, unpack
from dpo_telemetry.wire.messages import (
    LOST_AFTER_S,
    MAX_READ_BYTES,
    STALE_AFTER_S,
    TOPIC_DELTA,
    TOPIC_HEARTBEAT,
    Body,
    ControlReply,
    ControlRequest,
    Delta,
    Header,
    Heartbeat,
    HelloReply,
    HelloRequest,
    ReadReply,
    ReadRequest,
    SeriesReply,
    SeriesRequest,
    SnapshotReply,
    SnapshotRequest,
)

REQUEST_TIMEOUT_S = 3.0
"""A request without a reply for so long is asked again: its keeper may be a new one."""
READS_UNDER_WAY = 8
POLL_BUDGET_S = 0.05
"""How long one poll goes on while there is something to catch up with."""


class WireSource:
    """Follows a run through its keeper. Use it from one thread.

    `link` is "live", "stale" or "lost" by the age of the newest heartbeat; a source that is
    lost goes on trying for as long as it is polled.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._subscriber = connect(self._context, zmq.SUB, endpoints.publish)
        for topic in (TOPIC_DELTA, TOPIC_HEARTBEAT):
            self._subscriber.subscribe(topic)
        self._watch = connect(self._context, zmq.DEALER, endpoints.watch)
        self._follower = Follower()
        self._ready: list[Chunk] = []
        self._waiting: dict[int, tuple[float, ReadRequest | SnapshotRequest]] = {}
        self._next_id = 1
        self._created = time.monotonic()
        self._heard: float | None = None
        self._snapshot_due = True
        self.dropped = 0
        """Messages that were no messages."""
        self.problem = ""
        """Why this keeper cannot be followed, one line; empty when it can."""

    @property
    def link(self) -> Link:
        """How the keeper stands; "stale" also while a new source has not heard from it yet."""
        age_s = self._silent_s()
        if age_s >= LOST_AFTER_S:
            return "lost"
        return "live" if self._heard is not None and age_s < STALE_AFTER_S else "stale"

    def poll(self, wait_s: float = 0.0) -> list[Chunk]:
        """What grew since the last poll; waits at most `wait_s` seconds for a first piece."""
        started = time.monotonic()
        while True:
            self._receive()
            self._ask()
            catching_up = bool(self._waiting)
            spent_s = time.monotonic() - started
            allowed_s = max(POLL_BUDGET_S if catching_up else 0.0, 0.0 if self._ready else wait_s)
            if spent_s >= allowed_s:
                break
            self._wait(allowed_s - spent_s)
        ready, self._ready = self._ready, []
        return ready

    def offsets(self) -> dict[str, int]:
        """How far each file was handed out, in bytes."""
        return dict(self._follower.positions)

    def skip_to(self, offsets: Mapping[str, int]) -> None:
        """Go on from there: what lies before was read by other means."""
        self._follower.skip_to(offsets)

    def hello(self, timeout_s: float = REQUEST_TIMEOUT_S) -> HelloReply:
        """Who serves this run.

        Raises:
            TelemetryError: no answer in time, or a keeper of another version.
        """
        return call(self._endpoints.watch, HelloRequest(client="dpo-deck"), HelloReply, timeout_s)

    def log_files(self) -> dict[str, int]:
        """Raw logs of the run and their sizes in bytes; empty while the keeper is silent."""
        if self.link != "live":
            return {}
        try:
            return call(self._endpoints.watch, SnapshotRequest(), SnapshotReply, REQUEST_TIMEOUT_S).logs
        except TelemetryError:
            return {}

    def read_log(self, file: str, start: int, end: int) -> bytes:
        """Bytes of a raw log, at most `MAX_READ_BYTES`; empty while the keeper is silent."""
        if end <= start or self.link != "live":
            return b""
        request = ReadRequest(file=file, start=start, end=min(end, start + MAX_READ_BYTES))
        try:
            return call(self._endpoints.watch, request, ReadReply, REQUEST_TIMEOUT_S).data
        except TelemetryError:
            return b""

    def series(
        self, metric: str, *, buckets: int, first_step: int | None = None, last_step: int | None = None
    ) -> SeriesReply:
        """A downsampled series, and how far each file is reflected in it.

        Raises:
            TelemetryError: no answer in time, or no such metric.
        """
        request = SeriesRequest(metric=metric, buckets=buckets, first_step=first_step, last_step=last_step)
        return call(self._endpoints.watch, request, SeriesReply, REQUEST_TIMEOUT_S)

    def request(self, action: Action, *, issuer: str = "", timeout_s: float = 5.0) -> ControlReply:
        """Ask the ranks for something, on the control socket.

        Raises:
            TelemetryError: the keeper refused, or did not answer in time.
        """
        request = ControlRequest(action=action, issuer=issuer)
        return call(self._endpoints.control, request, ControlReply, timeout_s)

    def close(self) -> None:
        """Let go of the sockets."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _silent_s(self) -> float:
        since = self._created if self._heard is None else self._heard
        return time.monotonic() - since

    def _wait(self, timeout_s: float) -> None:
        poller = zmq.Poller()
        poller.register(self._subscriber, zmq.POLLIN)
        poller.register(self._watch, zmq.POLLIN)
        poller.poll(max(1, round(timeout_s * 1000)))

    def _receive(self) -> None:
        """Take what lies in the sockets, at most a queue's worth of each."""
        for socket in (self._subscriber, self._watch):
            for _ in range(RECEIVE_QUEUE):
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                self._take(frames[1:] if socket is self._subscriber else frames)

    def _take(self, frames: list[bytes]) -> None:
        try:
            header, body = unpack(frames)
        except NotAMessageError as error:
            self.dropped += 1
            self.problem = version_problem(error) or self.problem
            return
        self._heard = time.monotonic()
        self._handle(header, body)

    def _handle(self, header: Header, body: Body) -> None:
        match body:
            case Delta():
                self._hand_out(self._follower.delta(body))
                return
            case Heartbeat():
                self.problem = ""
                self._snapshot_due |= not self._follower.agrees(body.total_bytes)
                return
        asked = self._waiting.pop(header.id, None)
        if asked is None:
            return
        match body:
            case SnapshotReply():
                self._follower.snapshot(body.files)
            case ReadReply():
                self._hand_out(self._follower.read(body))
            case _ if isinstance(asked[1], ReadRequest):
                self._follower.unreadable(asked[1].file)

    def _hand_out(self, chunk: Chunk | None) -> None:
        if chunk is not None:
            self._ready.append(chunk)

    def _ask(self) -> None:
        """Send what is due; nothing while the keeper is silent, or it would find a heap of it."""
        now = time.monotonic()
        for id_, (deadline, request) in list(self._waiting.items()):
            if now >= deadline:
                del self._waiting[id_]
                if isinstance(request, ReadRequest):
                    self._follower.unreadable(request.file)
        if self._silent_s() >= STALE_AFTER_S:
            return
        if self._snapshot_due and self._send(SnapshotRequest()):
            self._snapshot_due = False
        for request in self._follower.wanted(READS_UNDER_WAY):
            if not self._send(request):
                self._follower.unreadable(request.file)

    def _send(self, request: ReadRequest | SnapshotRequest) -> bool:
        try:
            self._watch.send_multipart(pack(request, id=self._next_id), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._waiting[self._next_id] = (time.monotonic() + REQUEST_TIMEOUT_S, request)
        self._next_id += 1
        return True
