"""What may be asked of a live run, how it is asked, and what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, Protocol

from dpo_telemetry.events import Answer, Request
from dpo_telemetry.figures import duration
from dpo_telemetry.identity import user_name
from dpo_telemetry.reader.status import Status
from dpo_telemetry.rundir.control import submit
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.text import printable
from dpo_tui.errors import TuiError

Wish = Literal["stop", "save", "evaluate"]
"""What a running rank does when it is asked."""

WISHES: dict[Wish, str] = {
    "stop": "stop with checkpoint",
    "save": "save now",
    "evaluate": "evaluate now",
}
"""As people call them."""

WISH_KEYS: dict[str, Wish] = {"S": "stop", "C": "save", "E": "evaluate"}
"""Capitals: a slip of the finger does not ask for anything."""

EXPIRES_IN_S = 3600.0
KEEPER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is on its way; an answer event with its id tells what came of it."""

    id: str
    wish: Wish
    attempt: int
    expires_s: float
    """Wall clock, seconds since the epoch."""


class Control(Protocol):
    """A way to ask the ranks of one run. Both methods may wait: call them off the event loop."""

    def refusal(self) -> str:
        """Why nothing can be asked now, one line; empty when it can."""
        ...

    def ask(self, wish: Wish, now_s: float) -> Asked:
        """Ask the newest attempt at `now_s` (wall clock, seconds).

        Raises:
            click.ClickException: it was refused, or nobody is there to take it.
        """
        ...


class NoControl:
    """Stands where nobody can be asked, and says why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def refusal(self) -> str:
        """The reason."""
        return self._reason

    def ask(self, wish: Wish, now_s: float) -> Asked:
        """Always refused.

        Raises:
            TuiError: with the reason.
        """
        raise TuiError(self._reason)


class LocalControl:
    """Asks through the keeper's control socket; without a keeper, by a file in the run directory."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._issuer = f"dpo-tui ({user_name()})"

    def refusal(self) -> str:
        """Whether the run has ended, or is somebody else's.

        Raises:
            TelemetryError: this is no run directory, or its keeper's sockets cannot be trusted.
        """
        attempts = self._run.attempts()
        if not attempts or attempts[-1].ended():
            return f"{printable(self._run.name)} has ended; nobody is there to answer"
        # Sockets are imported by who has a run to ask: a replay opens sooner without them.
        from dpo_telemetry.wire.endpoints import of_run

        if of_run(self._run) is None and not self._writable():
            return f"no keeper, and {printable(str(self._run.control_dir))} cannot be written by you"
        return ""

    def ask(self, wish: Wish, now_s: float) -> Asked:
        """Ask the newest attempt.

        Raises:
            TelemetryError: the keeper refused or did not answer in time, or its sockets cannot be trusted.
            TuiError: the request cannot be written.
        """
        from dpo_telemetry.wire.calls import call
        from dpo_telemetry.wire.endpoints import of_run
        from dpo_telemetry.wire.messages import ControlReply, ControlRequest

        expires_s = now_s + EXPIRES_IN_S
        endpoints = of_run(self._run)
        if endpoints is not None:
            request = ControlRequest(action=wish, issuer=self._issuer, expires_in_s=EXPIRES_IN_S)
            reply = call(endpoints.control, request, ControlReply, KEEPER_TIMEOUT_S)
            return Asked(reply.request_id, wish, reply.attempt, expires_s)
        if refusal := self.refusal():
            raise TuiError(refusal)
        attempt = self._run.attempts()[-1].number
        try:
            written = submit(self._run, wish, issuer=self._issuer, attempt=attempt, expires_in_s=EXPIRES_IN_S)
        except OSError as error:
            raise TuiError(
                f"{self._run.control_dir}: the request cannot be written: {error.strerror}"
            ) from None
        return Asked(written.id, wish, attempt, written.expires)

    def _writable(self) -> bool:
        folder = self._run.control_dir
        return os.access(folder if folder.exists() else self._run.path, os.W_OK | os.X_OK)


@dataclass(frozen=True, slots=True)
class Told:
    """Something that the user hears of a request."""

    text: str
    severity: Literal["information", "warning", "error"] = "information"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a run says about requests, and how it stands."""

    requests: tuple[Request, ...]
    answers: tuple[Answer, ...]
    attempt: int
    status: Status
    now_s: float


class Requests:
    """The requests of this window, each until it is known what came of it."""

    def __init__(self) -> None:
        self._open: list[Asked] = []
        self._seen: set[str] = set()

    def add(self, asked: Asked) -> None:
        """Wait for the answer to this one."""
        self._open.append(asked)

    def take(self, heard: Heard) -> list[Told]:
        """What is new about the open ones."""
        told = []
        for asked in list(self._open):
            end = _end_of(asked, heard)
            if end is not None:
                self._open.remove(asked)
                told.append(end)
            elif asked.id not in self._seen and any(seen.id == asked.id for seen in heard.requests):
                self._seen.add(asked.id)
                told.append(Told(f"{WISHES[asked.wish]}: the run has seen it; it is done after this step"))
        return told


def _end_of(asked: Asked, heard: Heard) -> Told | None:
    """How a request ended; None while it may still be answered."""
    what = WISHES[asked.wish]
    for answer in heard.answers:
        if answer.id == asked.id:
            said = printable(answer.message) or ("done" if answer.ok else "no reason given")
            return Told(f"{what}: {said}") if answer.ok else Told(f"{what} was refused: {said}", "error")
    if heard.attempt > asked.attempt:
        return Told(f"{what}: attempt {asked.attempt} ended before it answered", "warning")
    if heard.attempt == asked.attempt and heard.status.ended:
        return Told(f"{what}: the run {heard.status.state} before it answered", "warning")
    if heard.now_s > asked.expires_s:
        return Told(f"{what}: nobody answered within {duration(EXPIRES_IN_S)}; it has expired", "warning")
    return None
