"""The event schema: the one place where a line of an event file is defined.

A line is one JSON object. `k` names the kind, `v` the schema version, `t` the wall clock
and `m` the monotonic clock of the writing process, both in seconds. JSON has no NaN, so a
number that is not finite is the string "nan", "inf" or "-inf". `docs/events.md` is written
from these classes.
"""

from __future__ import annotations

import math
import numbers
import time
from typing import Annotated, Literal, TypedDict

import msgspec

SCHEMA_VERSION = 1

NonFinite = Literal["nan", "inf", "-inf"]
Number = float | NonFinite
StepNumber = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
"""Optimizer steps made; what a double cannot count is damage."""
Severity = Literal["info", "warning", "critical"]
Role = Literal["rank", "agent", "keeper"]
PhaseName = Literal["load", "reference", "train", "eval", "save"]
Action = Literal["stop", "save", "evaluate", "acknowledge"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", omit_defaults=True):
    """What every line has."""

    v: int
    """Schema version of the line."""
    t: float
    """Wall clock, seconds since the epoch."""
    m: float
    """Monotonic clock of the writer, seconds; comparable within one file only."""


class Start(Event, frozen=True, kw_only=True, tag="start"):
    """A process of the run began to write."""

    role: Role
    host: str
    pid: int
    boot_id: str
    """Kernel's boot id: a pid means nothing after a reboot or in another container."""
    process_started: float
    """Start time of the process, seconds since the epoch."""
    rank: int | None = None
    world_size: int | None = None
    attempt: int = 1
    resumed_from_step: StepNumber | None = None
    versions: dict[str, str] = {}
    """Package name to version."""
    device: str = ""
    """Device the rank computes on, for example "cpu" or "NVIDIA H100 80GB HBM3"."""
    max_steps: StepNumber | None = None
    """Optimizer steps that the run will make."""


class Phase(Event, frozen=True, kw_only=True, tag="phase"):
    """A phase began, moved on or ended."""

    name: PhaseName
    state: Literal["begin", "progress", "end"]
    done: float | None = None
    total: float | None = None
    unit: str = ""
    message: str = ""
    step: StepNumber | None = None


class Step(Event, frozen=True, kw_only=True, tag="step"):
    """One optimizer step. Metric names are TRL's."""

    step: StepNumber
    metrics: dict[str, Number]
    epoch: float | None = None
    tokens: int | None = None
    """Tokens seen in this step, on all ranks when rank 0 writes it."""
    pairs: int | None = None
    times_s: dict[str, float] = {}
    """Seconds of "step", "data", "forward", "backward" and "optimizer"."""


class Eval(Event, frozen=True, kw_only=True, tag="eval"):
    """One evaluation on the held-out pairs. Metric names carry `eval_`."""

    step: StepNumber
    metrics: dict[str, Number]
    epoch: float | None = None
    pairs: int | None = None


class Memory(Event, frozen=True, kw_only=True, tag="memory"):
    """Memory of one rank, as measured; what was not measured is absent, never 0."""

    phase: PhaseName
    components: dict[str, int]
    """Bytes by component: storage of the real tensors, see `dpo_telemetry.components`."""
    rss_bytes: int | None = None
    """Resident set of the process."""
    peak_rss_bytes: int | None = None
    """Largest resident set since the process began."""
    allocated_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    step: StepNumber | None = None


class Host(Event, frozen=True, kw_only=True, tag="host"):
    """One look at a host."""

    host: str
    memory_total_bytes: int
    memory_available_bytes: int
    cpu_percent: float | None = None
    disk_free_bytes: int | None = None
    rss_bytes: dict[str, int] = {}
    """Resident set of each rank's process, by rank as a string."""


class Gpu(Event, frozen=True, kw_only=True, tag="gpu"):
    """One look at one GPU through NVML; what the driver does not support is absent."""

    host: str
    index: int
    name: str
    uuid: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    process_bytes: dict[str, int] = {}
    """Bytes on the card by pid as a string."""
    utilisation_percent: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    error: str = ""


class Checkpoint(Event, frozen=True, kw_only=True, tag="checkpoint"):
    """A checkpoint or the final adapter is on disk."""

    step: StepNumber
    path: str
    """Relative to the run directory."""
    size_bytes: int
    final: bool = False


class Sample(Event, frozen=True, kw_only=True, tag="sample"):
    """The samples behind a value that is not finite."""

    step: StepNumber
    metric: str
    sample_ids: list[int]
    rank: int = 0


class LogGap(Event, frozen=True, kw_only=True, tag="log_gap"):
    """Events that were lost on the way to the file, counted."""

    lost: int
    reason: str


class Alert(Event, frozen=True, kw_only=True, tag="alert"):
    """A health rule fired; the codes are listed in `dpo_telemetry.health`."""

    code: str
    severity: Severity
    message: str
    metric: str | None = None
    step: StepNumber | None = None
    last_step: StepNumber | None = None
    count: int = 1
    advice: str = ""


class Request(Event, frozen=True, kw_only=True, tag="request"):
    """A control request was seen."""

    id: str
    action: Action
    issuer: str = ""


class Answer(Event, frozen=True, kw_only=True, tag="answer"):
    """What came of a request."""

    id: str
    ok: bool
    message: str = ""


class Heartbeat(Event, frozen=True, kw_only=True, tag="heartbeat"):
    """The process is alive."""

    phase: PhaseName | None = None
    step: StepNumber | None = None


class Exit(Event, frozen=True, kw_only=True, tag="exit"):
    """The process, or a process that it watches, ended."""

    role: Role
    code: int | None = None
    signal: str = ""
    reason: str = ""
    rank: int | None = None
    step: StepNumber | None = None


AnyEvent = (
    Start | Phase | Step | Eval | Memory | Host | Gpu | Checkpoint | Sample | LogGap | Alert
    | Request | Answer | Heartbeat | Exit
)  # fmt: skip

EVENT_TYPES: tuple[type[Event], ...] = (
    Start, Phase, Step, Eval, Memory, Host, Gpu, Checkpoint, Sample, LogGap, Alert,
    Request, Answer, Heartbeat, Exit,
)  # fmt: skip

KINDS: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in EVENT_TYPES}


class Header(msgspec.Struct, frozen=True):
    """The part of a line that any version can read."""

    k: str
    v: int


MAX_LINE_BYTES = 1 << 20
"""A longer line is damage: no event of ours comes near it."""

NOT_READABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding damaged bytes raises: no JSON, wrong fields, no UTF-8, nesting without end."""


def _plain_number(value: object) -> float:
    """A number of another library as one of Python's."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_plain_number)
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_header = msgspec.json.Decoder(Header)


class Stamp(TypedDict):
    """What `stamp` fills in."""

    v: int
    t: float
    m: float


def stamp() -> Stamp:
    """Version and clocks for a new event: `Step(**stamp(), step=1, ...)`."""
    return Stamp(v=SCHEMA_VERSION, t=time.time(), m=time.monotonic())


def encode(event: Event) -> bytes:
    """One line, newline included."""
    line = _encoder.encode(event)
    if b"null" in line and isinstance(event, Step | Eval):
        # JSON has no NaN: without this, one metric that is not finite would cost the whole row.
        line = _encoder.encode(_spelled_out(event))
    return line + b"\n"


def _spelled_out(event: Step | Eval) -> Step | Eval:
    metrics = {name: to_number(from_number(value)) for name, value in event.metrics.items()}
    if isinstance(event, Eval):
        return msgspec.structs.replace(event, metrics=metrics)
    times_s = {name: time_s for name, time_s in event.times_s.items() if math.isfinite(time_s)}
    return msgspec.structs.replace(event, metrics=metrics, times_s=times_s)


def decode(line: bytes) -> AnyEvent | None:
    """The event of one line, or None when this version cannot know it: a new kind, or a newer form.

    Raises:
        NOT_READABLE: the line is damaged, or a known kind has wrong fields.
    """
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError:
        header = _header.decode(line)
        if header.k in KINDS and header.v <= SCHEMA_VERSION:
            raise
        return None


def decode_all(lines: bytes) -> list[AnyEvent]:
    """The events of whole lines, all or none.

    Raises:
        NOT_READABLE: one of them is no event that this version knows.
    """
    return _decoder.decode_lines(lines)


def to_number(value: float) -> Number:
    """A float as a line carries it."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "nan"
    return "inf" if value > 0 else "-inf"


def from_number(value: Number) -> float:
    """The float that a line means."""
    return float(value)
