"""Control requests: one file a request, written by whoever asks, read by the ranks.

Nobody deletes another's file: a request that is expired, for another attempt, or answered
(an Answer event names its id) is ignored.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Container

import msgspec

from dpo_telemetry.events import NOT_READABLE, Action
from dpo_telemetry.rundir.create import write_atomically
from dpo_telemetry.rundir.layout import RunDirectory


class ControlRequest(msgspec.Struct, frozen=True):
    """What `control/ID.json` holds."""

    id: str
    action: Action
    issuer: str
    attempt: int
    expires: float
    """Seconds since the epoch."""


def submit(
    run: RunDirectory, action: Action, *, issuer: str, attempt: int, expires_in_s: float = 3600.0
) -> ControlRequest:
    """Ask the ranks of one attempt for something."""
    request = ControlRequest(
        id=uuid.uuid4().hex[:12],
        action=action,
        issuer=issuer,
        attempt=attempt,
        expires=time.time() + expires_in_s,
    )
    run.control_dir.mkdir(mode=0o700, exist_ok=True)
    write_atomically(run.control_dir / f"{request.id}.json", msgspec.json.encode(request))
    return request


def pending(run: RunDirectory, attempt: int, answered: Container[str] = ()) -> list[ControlRequest]:
    """Requests to this attempt that are neither expired nor answered; damaged files are no requests."""
    now = time.time()
    found = []
    for file in sorted(run.control_dir.glob("*.json")):
        try:
            request = msgspec.json.decode(file.read_bytes(), type=ControlRequest)
        except (OSError, *NOT_READABLE):
            continue
        if request.attempt == attempt and request.expires > now and request.id not in answered:
            found.append(request)
    return found
