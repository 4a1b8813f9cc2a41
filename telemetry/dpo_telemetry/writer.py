"""Writing events: one writer a file, and a step that never waits for the disk.

The caller encodes one line and puts it into a bounded queue; a thread appends it. A disk that
is full or hangs costs telemetry, which is counted and written down as a gap, and no step.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.events import Event

RETRY_S = 0.5
"""Pause before a failed write is tried again."""

Item = bytes | threading.Event | None
"""A line to append, a flush that waits, or the end."""


class EventWriter:
    """Appends events to a new file of its own.

    At most the events of one step are lost on kill -9 (they are in the kernel as soon as the
    thread has written them) and `fsync_interval_s` worth of events on power loss. While the disk
    takes nothing, `capacity` lines wait in the queue behind those being written; what comes on
    top is counted and written down as a `log_gap` when the disk is back.

    Raises:
        TelemetryError: the file exists already, or cannot be made.
    """

    def __init__(self, path: Path, *, capacity: int = 10_000, fsync_interval_s: float = 1.0) -> None:
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except FileExistsError:
            raise TelemetryError(
                f"{path}: already has a writer; a restarted process starts a new file"
            ) from None
        except OSError as error:
            raise TelemetryError(f"{path}: cannot be written: {error.strerror}") from error
        self.path = path
        self._capacity = capacity
        self._fsync_interval_s = fsync_interval_s
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._losing = threading.Lock()
        self._lost = 0
        self._reason = ""
        self._heartbeat: Callable[[], Event] | None = None
        self._heartbeat_interval_s = 1.0
        self._closed = threading.Event()
        self._give_up_at = math.inf
        self._thread = threading.Thread(target=self._run, name=f"events:{path.name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue one event; never blocks. When the queue is full the event is lost and counted.

        After `close` it does nothing.
        """
        if self._closed.is_set():
            return
        if self._queue.qsize() >= self._capacity:
            self._lose("queue full")
        else:
            self._queue.put(events.encode(event))

    def set_heartbeat(self, interval_s: float, heartbeat: Callable[[], Event]) -> None:
        """Let the writer's thread add an event of its own each `interval_s` seconds."""
        self._heartbeat_interval_s = interval_s
        self._heartbeat = heartbeat
        self._queue.put(b"")  # wakes the thread, whose wait may be a long one

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything queued so far is on disk; False when it took longer."""
        if self._closed.is_set():
            return not self._thread.is_alive()
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, sync and close; a full disk is given `timeout_s`. Safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._give_up_at = time.monotonic() + timeout_s
        self._queue.put(None)
        self._thread.join(timeout_s + RETRY_S)

    def _lose(self, reason: str) -> None:
        with self._losing:
            first, self._lost = self._lost == 0, self._lost + 1
            self._reason = self._reason or reason
        if first:
            self._queue.put(b"")  # wakes the thread: the gap is written even if no event follows

    def _run(self) -> None:
        pending = b""
        next_beat = next_sync = time.monotonic()
        waiting: list[threading.Event] = []
        unsynced = stop = False
        while pending or not stop:
            lines = [pending]
            if pending:
                if time.monotonic() >= self._give_up_at:
                    break
                time.sleep(RETRY_S)
            else:
                for item in self._take(self._timeout(next_beat, next_sync if unsynced else None)):
                    if item is None:
                        stop = True
                    elif isinstance(item, threading.Event):
                        waiting.append(item)
                    else:
                        lines.append(item)
            now = time.monotonic()
            if self._heartbeat is not None and now >= next_beat and not stop:
                lines.append(self._beat(self._heartbeat))
                next_beat = now + self._heartbeat_interval_s
            data = b"".join(lines)
            unsynced |= bool(data) or self._lost > 0
            pending = self._write(data)
            if unsynced and (stop or waiting or now >= next_sync):
                self._sync()
                unsynced, next_sync = False, now + self._fsync_interval_s
            if not pending:
                for reached in waiting:
                    reached.set()
                waiting.clear()
        os.close(self._fd)

    def _timeout(self, next_beat: float, next_sync: float | None) -> float | None:
        due = [] if next_sync is None else [next_sync]
        if self._heartbeat is not None:
            due.append(next_beat)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take(self, timeout: float | None) -> list[Item]:
        """What is queued, after waiting at most `timeout` seconds for a first item."""
        items: list[Item] = []
        with contextlib.suppress(queue.Empty):
            items.append(self._queue.get(timeout=timeout))
            while len(items) < self._capacity:
                items.append(self._queue.get_nowait())
        return items

    def _beat(self, heartbeat: Callable[[], Event]) -> bytes:
        try:
            return events.encode(heartbeat())
        except Exception as error:  # noqa: BLE001 - a caller's fault must not end the only writer
            self._lose(f"heartbeat failed: {error}")
            return b""

    def _write(self, data: bytes) -> bytes:
        """Append `data` and then a gap if there is one; returns what the disk did not take."""
        rest = self._append(data)
        if rest or not self._lost:
            return rest
        with self._losing:
            lost, self._lost = self._lost, 0
            reason, self._reason = self._reason, ""
        return self._append(events.encode(events.LogGap(**events.stamp(), lost=lost, reason=reason)))

    def _append(self, data: bytes) -> bytes:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            # A line may be half written now: its rest has to follow, or it damages its neighbour.
            return bytes(view)
        return b""

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._fd)
