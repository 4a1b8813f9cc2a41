"""What the outside asks of a running rank: SIGTERM, and requests in the control folder.

A thread looks into the folder, so a step never waits for a file system. While the run loads there
is nothing to save, and a stop ends it at once; later it is served at the end of the step.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dpo_telemetry import events
from dpo_telemetry.events import Event
from dpo_telemetry.rundir import control
from dpo_telemetry.rundir.control import ControlRequest
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_trainer.engine import Ranks

POLL_S = 0.5


class Stopped(BaseException):
    """The run was asked to stop where nothing has been trained."""


class Control:
    """Requests to one rank, seen and answered."""

    def __init__(self, run: RunDirectory, attempt: int, put: Callable[[Event], None], ranks: Ranks) -> None:
        self._run = run
        self._ranks = ranks
        self._attempt = attempt
        self._put = put
        self._seen: set[str] = set()
        self._open: list[ControlRequest] = []
        self._taken: list[ControlRequest] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._may_raise = False
        self.stopping = False
        """Whether to stop at the end of the step."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and requests while inside."""
        previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        thread = threading.Thread(target=self._watch, name="control", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join()
            signal.signal(signal.SIGTERM, previous)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Where a stop raises `Stopped` at once, because there is nothing to save.

        One of several ranks that ended at once would leave the others waiting in a collective: they
        stop where `raise_if_stopping` is called.
        """
        self._may_raise = self._ranks.world_size == 1
        try:
            if self._may_raise:
                self.raise_if_stopping()
            yield
        finally:
            self._may_raise = False

    def raise_if_stopping(self) -> None:
        """Raise `Stopped` when a stop was asked for on any rank; to be called on all ranks."""
        if self._ranks.any([self.stopping])[0]:
            raise Stopped

    def take(self) -> list[ControlRequest]:
        """Requests to serve now."""
        with self._lock:
            taken, self._open = self._open, []
        self._taken += taken
        return taken

    def unanswered(self) -> list[ControlRequest]:
        """Requests that nobody has answered, whether they were taken or not."""
        self.take()
        return list(self._taken)

    def answer(self, request: ControlRequest, ok: bool, message: str) -> None:
        """Say what came of a request."""
        self._taken.remove(request)
        self._put(events.Answer(**events.stamp(), id=request.id, ok=ok, message=message))

    def _on_sigterm(self, _: int, __: FrameType | None) -> None:
        self.stopping = True
        if self._may_raise:
            self._may_raise = False
            raise Stopped

    def _watch(self) -> None:
        while not self._closed.wait(POLL_S):
            for request in control.pending(self._run, self._attempt, self._seen):
                self._see(request)

    def _see(self, request: ControlRequest) -> None:
        self._seen.add(request.id)
        if request.action not in ("stop", "save", "evaluate"):
            return
        if self._ranks.rank == 0:
            self._put(
                events.Request(**events.stamp(), id=request.id, action=request.action, issuer=request.issuer)
            )
            with self._lock:
                self._open.append(request)
        if request.action == "stop":
            # The handler runs in the main thread, where it can also end a run that still loads.
            os.kill(os.getpid(), signal.SIGTERM)
