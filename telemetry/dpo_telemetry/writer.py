"""Writing events: one writer a file, and a step that never waits for the disk.

The caller encodes one line and puts it into a bounded queue; a thread appends it. A disk that
is full or hangs costs telemetry, which is counted and written down as a gap, and no step.
"""

from __future__ import annotations

import contextlib
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


class EventWriter:
    """Appends events to a new file of its own.

    At most the events of one step are lost on kill -9 (they are in the kernel as soon as the
    thread has written them) and `fsync_interval_s` worth of events on power loss.

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
        self._queue: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._lost = 0
        self._reason = ""
        self._heartbeat: Callable[[], Event] | None = None
        self._heartbeat_interval_s = 1.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"events:{path.name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue one event; never blocks. When the queue is full the event is lost and counted."""
        if self._queue.qsize() >= self._capacity or self._closed.is_set():
            self._lost += 1
            self._reason = self._reason or "queue full"
            return
        self._queue.put(events.encode(event))

    def set_heartbeat(self, interval_s: float, heartbeat: Callable[[], Event]) -> None:
        """Let the writer's thread add an event of its own each `interval_s` seconds."""
        self._heartbeat_interval_s = interval_s
        self._heartbeat = heartbeat
        self._queue.put(b"")  # wakes the thread, whose wait may be a long one

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything queued so far is on disk; False when it took longer."""
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, sync and close. Safe to call twice."""
        if self._closed.is_set():
            return
        self._queue.put(None)
        self._thread.join(timeout_s)
        self._closed.set()

    def _run(self) -> None:
        pending = b""
        next_beat = next_sync = time.monotonic()
        waiting: list[threading.Event] = []
        unsynced = False
        while True:
            stop = False
            timeout = self._timeout(next_beat, next_sync if unsynced else None, bool(pending))
            for item in self._take(timeout):
                if item is None:
                    stop = True
                elif isinstance(item, threading.Event):
                    waiting.append(item)
                else:
                    pending += item
            now = time.monotonic()
            if self._heartbeat is not None and now >= next_beat and not stop:
                pending += events.encode(self._heartbeat())
                next_beat = now + self._heartbeat_interval_s
            if pending or self._lost:
                unsynced = True
            pending = self._write(pending)
            if unsynced and (stop or waiting or now >= next_sync):
                self._sync()
                unsynced, next_sync = False, now + self._fsync_interval_s
            if not pending:
                for reached in waiting:
                    reached.set()
                waiting.clear()
            if stop:
                os.close(self._fd)
                return

    def _timeout(self, next_beat: float, next_sync: float | None, retry: bool) -> float | None:
        now = time.monotonic()
        due = [RETRY_S] if retry else []
        if self._heartbeat is not None:
            due.append(next_beat - now)
        if next_sync is not None:
            due.append(next_sync - now)
        return max(0.0, min(due)) if due else None

    def _take(self, timeout: float | None) -> list[bytes | threading.Event | None]:
        """What is queued, after waiting at most `timeout` seconds for a first item."""
        items: list[bytes | threading.Event | None] = []
        with contextlib.suppress(queue.Empty):
            items.append(self._queue.get(timeout=timeout))
            while len(items) < self._capacity:
                items.append(self._queue.get_nowait())
        return items

    def _write(self, data: bytes) -> bytes:
        """Append `data` and then a gap if there is one; returns what the disk did not take."""
        rest = self._append(data)
        if rest or not self._lost:
            return rest
        lost, self._lost = self._lost, 0
        gap = events.LogGap(**events.stamp(), lost=lost, reason=self._reason)
        self._reason = ""
        return self._append(events.encode(gap))

    def _append(self, data: bytes) -> bytes:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            return self._keep(bytes(view), error)
        return b""

    def _keep(self, data: bytes, error: OSError) -> bytes:
        """What is kept for the next try; past the capacity, whole lines are dropped and counted."""
        lines = data.splitlines(keepends=True)
        dropped = len(lines) - self._capacity
        if dropped > 0:
            # The first line may be half written: its rest has to follow, or it damages its neighbour.
            lines = [lines[0], *lines[1 + dropped :]]
            self._lost += dropped
            self._reason = error.strerror or "write failed"
        return b"".join(lines)

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._fd)
