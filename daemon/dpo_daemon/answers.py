"""What the keeper answers: each request a function of the run as it was last looked at."""

from __future__ import annotations

import logging
from collections import Counter

from dpo_daemon.downsample import downsample
from dpo_daemon.sockets import Channel
from dpo_telemetry import identity
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir import control
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.wire.frames import NotAMessageError, pack, unpack
from dpo_telemetry.wire.messages import (
    HEARTBEAT_INTERVAL_S,
    MAX_READ_BYTES,
    MAX_REQUEST_BYTES,
    PROTOCOL_VERSION,
    Body,
    Budget,
    BudgetRequest,
    ControlReply,
    ControlRequest,
    ErrorReply,
    HelloReply,
    HelloRequest,
    ReadReply,
    ReadRequest,
    SeriesReply,
    SeriesRequest,
    SnapshotReply,
    SnapshotRequest,
)

log = logging.getLogger(__name__)

CAPABILITIES = ["hello_request", "snapshot_request", "read_request", "series_request", "budget_request",
                "control_request"]  # fmt: skip


class Answers:
    """Turns the frames of a request into the frames of its reply."""

    def __init__(self, run: RunDirectory, source: DirectorySource, model: RunModel) -> None:
        self._run = run
        self._info = run.info()
        self._source = source
        self._model = model
        self._identity = identity.current()
        self.dropped: Counter[str] = Counter()
        """Messages that were dropped, by what was wrong with them."""

    def answer(self, channel: Channel, frames: list[bytes]) -> list[bytes] | None:
        """The reply's frames; None for what is dropped."""
        try:
            header, body = unpack(frames, limit=MAX_REQUEST_BYTES)
        except NotAMessageError as error:
            self.dropped[error.damage] += 1
            if error.damage == "version" and error.header is not None:
                return pack(_other_version(error.header.protocol), id=error.header.id, run=self._info.id)
            return None
        if header.run and header.run != self._info.id:
            reply: Body | None = ErrorReply(code="not_found", message=f"this keeper serves {self._info.name}")
        else:
            reply = self._watch(body) if channel == "watch" else self._control(body)
        if reply is None:
            self.dropped["unknown"] += 1
            return None
        return pack(reply, id=header.id, run=self._info.id)

    def _watch(self, body: Body) -> Body | None:
        match body:
            case HelloRequest():
                return self._hello()
            case SnapshotRequest():
                return SnapshotReply(files=self._source.offsets(), logs=self._source.log_files())
            case ReadRequest():
                return self._read(body)
            case SeriesRequest():
                return self._series(body)
            case BudgetRequest():
                attempt = self._model.attempt
                return Budget(
                    attempt=attempt.number if attempt else 0,
                    ranks=attempt.budget.ranks() if attempt else [],
                )
            case ControlRequest():
                return ErrorReply(code="refused", message="requests go to the control socket")
        return None

    def _control(self, body: Body) -> Body | None:
        match body:
            case HelloRequest():
                return self._hello()
            case ControlRequest():
                return self._submit(body)
        return None

    def _hello(self) -> HelloReply:
        return HelloReply(
            run_id=self._info.id,
            run_name=self._info.name,
            host=identity.host_name(),
            pid=self._identity.pid,
            started=self._identity.started,
            capabilities=CAPABILITIES,
            max_read_bytes=MAX_READ_BYTES,
            heartbeat_interval_s=HEARTBEAT_INTERVAL_S,
        )

    def _read(self, request: ReadRequest) -> Body:
        """Only files that were published, and of those only bytes that were: a torn tail is not there yet."""
        published = self._source.offsets().get(request.file)
        end = min(request.end, request.start + MAX_READ_BYTES)
        if published is not None:
            data = self._source.read(request.file, request.start, min(end, published))
        elif request.file in self._source.log_files():
            data = self._source.read_log(request.file, request.start, end)
        else:
            return ErrorReply(code="not_found", message=f"{request.file}: no such file in this run")
        return ReadReply(file=request.file, start=request.start, data=data)

    def _series(self, request: SeriesRequest) -> Body:
        if request.metric not in self._model.series.names():
            return ErrorReply(code="not_found", message=f"{request.metric}: no such metric in this run")
        pieces = downsample(
            self._model.series.effective(request.metric),
            buckets=request.buckets,
            first_step=request.first_step,
            last_step=request.last_step,
        )
        return SeriesReply(
            metric=request.metric,
            first_steps=pieces.first_steps.tolist(),
            last_steps=pieces.last_steps.tolist(),
            low=pieces.low.tolist(),
            high=pieces.high.tolist(),
            last=pieces.last.tolist(),
            nonfinite=pieces.nonfinite.tolist(),
            offsets=self._model.offsets(),
        )

    def _submit(self, request: ControlRequest) -> Body:
        attempts = self._run.attempts()
        if not attempts or attempts[-1].ended():
            return ErrorReply(
                code="refused", message=f"{self._info.name}: has ended; nobody is there to answer"
            )
        try:
            submitted = control.submit(
                self._run,
                request.action,
                issuer=request.issuer,
                attempt=attempts[-1].number,
                expires_in_s=request.expires_in_s,
            )
        except (OSError, TelemetryError) as error:
            return ErrorReply(code="refused", message=f"the request cannot be written: {error}")
        log.info("request %s: %s by %s", submitted.id, submitted.action, submitted.issuer or "unknown")
        return ControlReply(request_id=submitted.id, attempt=submitted.attempt)


def _other_version(theirs: int) -> ErrorReply:
    older = "client" if theirs < PROTOCOL_VERSION else "keeper"
    message = f"this keeper speaks protocol {PROTOCOL_VERSION}, you {theirs}; update the {older}"
    return ErrorReply(code="version", message=message)
