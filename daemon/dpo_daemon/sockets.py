"""The keeper's sockets: bound by one keeper a run, and bound again when somebody removes the files."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import zmq

from dpo_daemon.errors import DaemonError
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.wire import endpoints
from dpo_telemetry.wire.endpoints import Endpoints, address
from dpo_telemetry.wire.messages import MAX_MESSAGE_BYTES

Channel = Literal["watch", "control"]

PUBLISH_QUEUE = 1000
"""Deltas kept for a client that does not take them; what it misses it reads later."""
GOODBYE_MS = 1000
"""How long the last messages may take to leave when the sockets close."""


class Sockets:
    """PUB, and a ROUTER each for watching and controlling.

    Raises:
        DaemonError: another keeper serves this run, or something else listens at its sockets.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._run_id = run.info().id
        self.endpoints = endpoints.prepare(self._run_id)
        self._lock = _lock(self.endpoints, run)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._publish = self._socket(zmq.PUB)
        self._publish.sndhwm = PUBLISH_QUEUE
        self._routers: dict[Channel, zmq.Socket[bytes]] = {
            "watch": self._socket(zmq.ROUTER),
            "control": self._socket(zmq.ROUTER),
        }
        self._poller = zmq.Poller()
        for router in self._routers.values():
            self._poller.register(router, zmq.POLLIN)
        for path, socket in self._bindings():
            _bind(socket, path)

    def publish(self, topic: bytes, frames: list[bytes]) -> None:
        """Send to every subscriber; never waits for one."""
        self._publish.send_multipart([topic, *frames])

    def received(self, timeout_s: float) -> Iterator[tuple[Channel, bytes, list[bytes]]]:
        """Channel, sender and frames of what came in, waiting at most `timeout_s` for a first one."""
        self._poller.poll(round(timeout_s * 1000))
        for channel, router in self._routers.items():
            with contextlib.suppress(zmq.Again):
                for _ in range(PUBLISH_QUEUE):
                    sender, *frames = router.recv_multipart(zmq.NOBLOCK)
                    yield channel, sender, frames

    def reply(self, channel: Channel, receiver: bytes, frames: list[bytes]) -> None:
        """Send to one client; one that does not take it loses it, and asks again."""
        with contextlib.suppress(zmq.ZMQError):
            self._routers[channel].send_multipart([receiver, *frames], zmq.NOBLOCK)

    def mend(self) -> bool:
        """Bind again what was removed from the folder; True when something was.

        systemd removes the whole runtime directory when its user logs out; then all sockets move
        to the next folder, where clients look as well.

        Raises:
            DaemonError: another process listens there, or the lock is held; may be tried again.
            TelemetryError: no folder can be used; may be tried again.
        """
        missing = [path for path, _ in self._bindings() if not path.exists()]
        if not missing:
            return False
        where = endpoints.prepare(self._run_id)
        moves = where != self.endpoints
        if moves or not where.lock.exists():
            before, self._lock = self._lock, _lock(where, self._run)
            os.close(before)
        for path, socket in self._bindings():
            if moves or path in missing:
                with contextlib.suppress(zmq.ZMQError):
                    socket.unbind(address(path))
        old, self.endpoints = self._bindings(), where
        for (path, socket), (old_path, _) in zip(self._bindings(), old, strict=True):
            if moves or old_path in missing:
                _bind(socket, path)
        return True

    def close(self) -> None:
        """Send what is queued, then let go of sockets and lock."""
        self._context.destroy(linger=GOODBYE_MS)
        for path, _ in self._bindings():
            path.unlink(missing_ok=True)
        os.close(self._lock)

    def _bindings(self) -> list[tuple[Path, zmq.Socket[bytes]]]:
        return [
            (self.endpoints.publish, self._publish),
            (self.endpoints.watch, self._routers["watch"]),
            (self.endpoints.control, self._routers["control"]),
        ]

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.maxmsgsize = MAX_MESSAGE_BYTES
        return socket


def _lock(where: Endpoints, run: RunDirectory) -> int:
    try:
        descriptor = os.open(where.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DaemonError(f"{where.lock}: cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise DaemonError(
            f"{run.path}: a keeper serves this run already; watch it with `dpo-tui attach {run.name}`"
        ) from None
    return descriptor


def _bind(socket: zmq.Socket[bytes], path: Path) -> None:
    """Bind where nobody listens. ZeroMQ replaces the file of a dead keeper, and a living one's as readily."""
    if endpoints.listens(path):
        raise DaemonError(f"{path}: another process listens here; end it, then run `dpo-daemon keep` again")
    before = os.umask(0o177)
    try:
        socket.bind(address(path))
    except zmq.ZMQError as error:
        raise DaemonError(f"{path}: cannot be bound: {error.strerror}") from None
    finally:
        os.umask(before)
