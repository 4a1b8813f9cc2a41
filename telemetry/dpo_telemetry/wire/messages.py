"""The messages, as `docs/protocol.md` specifies them; a test holds both together.

A message is two msgpack maps, each a frame of its own: a header that any version can read,
and a body whose fields follow from the header's `kind`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dpo_telemetry.budget import RankBudget
from dpo_telemetry.events import Action

PROTOCOL_VERSION = 1

MAX_MESSAGE_BYTES = 16 << 20
"""Largest message that a client takes; the largest is a snapshot of some 100,000 files."""
MAX_REQUEST_BYTES = 64 << 10
"""Largest message that a keeper takes."""
MAX_READ_BYTES = 1 << 20
"""Largest range of one read; a longer one is answered with its first part."""
MAX_DELTA_BYTES = 64 << 10
"""Largest piece that is published: a slow client's queue stays bounded."""
MAX_BUCKETS = 4096
MAX_BUDGET_RANKS = 32
"""Most ranks of one published budget."""

HEARTBEAT_INTERVAL_S = 1.0
STALE_AFTER_S = 3.0
"""Age of the newest heartbeat from which a keeper is called stale."""
LOST_AFTER_S = 10.0
"""Age from which it is called lost."""

TOPIC_DELTA = b"delta"
TOPIC_HEARTBEAT = b"heartbeat"
TOPIC_BUDGET = b"budget"

Offset = Annotated[int, Meta(ge=0, le=1 << 62)]
FileName = Annotated[str, Meta(min_length=1, max_length=300)]
"""A file of the run, relative to the run directory, with forward slashes."""
MetricName = Annotated[str, Meta(min_length=1, max_length=200)]
ErrorCode = Literal["version", "not_found", "refused"]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame of every message. Its fields are the same in all versions."""

    protocol: Annotated[int, Meta(ge=0)]
    """Version of the protocol that the body follows."""
    kind: Annotated[str, Meta(max_length=64)]
    """Which message the body is."""
    id: Offset = 0
    """Chosen by whoever asks and repeated in the reply; 0 in what is published."""
    run: Annotated[str, Meta(max_length=64)] = ""
    """Run id from run.json; a client may leave it empty."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every body. Fields that a receiver does not know are ignored."""


class HelloRequest(Body, frozen=True, kw_only=True):
    """Who are you? The first thing that a client asks."""

    client: Annotated[str, Meta(max_length=200)] = ""
    """Name and version of the client, for the keeper's log."""


class HelloReply(Body, frozen=True, kw_only=True):
    """The run that this keeper serves, and what it can do."""

    run_id: str
    run_name: str
    host: str
    pid: int
    started: float
    """Start time of the keeper, seconds since the epoch."""
    capabilities: list[str]
    """Request kinds that are answered."""
    max_read_bytes: int
    heartbeat_interval_s: float


class SnapshotRequest(Body, frozen=True, kw_only=True):
    """Which files are there, and how long are they?"""


class SnapshotReply(Body, frozen=True, kw_only=True):
    """Sizes in bytes of what has been published so far, by file name."""

    files: dict[str, int]
    """Files whose growth is published as deltas."""
    logs: dict[str, int]
    """Raw logs: read on request only."""


class ReadRequest(Body, frozen=True, kw_only=True):
    """The bytes of one file from `start` to before `end`."""

    file: FileName
    start: Offset
    end: Offset


class ReadReply(Body, frozen=True, kw_only=True):
    """Bytes from `start` on; fewer than asked at the end of the file or past the largest read."""

    file: str
    start: int
    data: bytes


class SeriesRequest(Body, frozen=True, kw_only=True):
    """One metric's effective series in at most `buckets` pieces of equal width in steps."""

    metric: MetricName
    first_step: int | None = None
    """Leave out older steps; None starts at the first."""
    last_step: int | None = None
    """Leave out newer steps; None ends at the newest."""
    buckets: Annotated[int, Meta(ge=1, le=MAX_BUCKETS)] = 1000


class SeriesReply(Body, frozen=True, kw_only=True):
    """Buckets that hold rows, in the order of their steps; all lists have the same length."""

    metric: str
    first_steps: list[int]
    last_steps: list[int]
    low: list[float]
    """Smallest finite value; NaN when there is none."""
    high: list[float]
    """Largest finite value; NaN when there is none."""
    last: list[float]
    """Newest value, finite or not."""
    nonfinite: list[int]
    """Values that are NaN or infinite."""
    offsets: dict[str, int]
    """How far each event file is reflected, in bytes."""


class BudgetRequest(Body, frozen=True, kw_only=True):
    """What does each rank use against its plan?"""


class Budget(Body, frozen=True, kw_only=True):
    """The answer with all ranks that have a plan and a measurement, and published with those that changed."""

    attempt: int
    """0 before there is one."""
    ranks: list[RankBudget]


class ControlRequest(Body, frozen=True, kw_only=True):
    """Ask the ranks of the newest attempt for something; on the control socket only."""

    action: Action
    issuer: Annotated[str, Meta(max_length=200)] = ""
    expires_in_s: Annotated[float, Meta(gt=0, le=86400)] = 3600.0


class ControlReply(Body, frozen=True, kw_only=True):
    """The request is in the run directory; an answer event with this id tells what came of it."""

    request_id: str
    attempt: int


class ErrorReply(Body, frozen=True, kw_only=True):
    """A request that was understood and cannot be served."""

    code: ErrorCode
    message: str
    """One line for people."""


class Delta(Body, frozen=True, kw_only=True):
    """Published: a file grew by these bytes."""

    file: str
    offset: Offset
    data: bytes


class Heartbeat(Body, frozen=True, kw_only=True):
    """Published each second, after the deltas that it counts."""

    time: float
    """Keeper's wall clock, seconds since the epoch."""
    files: int
    """Number of files published so far."""
    total_bytes: int
    """Sum of their sizes; a client that has less has missed something."""


KINDS: dict[str, type[Body]] = {
    "hello_request": HelloRequest,
    "hello_reply": HelloReply,
    "snapshot_request": SnapshotRequest,
    "snapshot_reply": SnapshotReply,
    "read_request": ReadRequest,
    "read_reply": ReadReply,
    "series_request": SeriesRequest,
    "series_reply": SeriesReply,
    "budget_request": BudgetRequest,
    "budget": Budget,
    "control_request": ControlRequest,
    "control_reply": ControlReply,
    "error_reply": ErrorReply,
    "delta": Delta,
    "heartbeat": Heartbeat,
}
KIND_OF: dict[type[Body], str] = {body: kind for kind, body in KINDS.items()}
