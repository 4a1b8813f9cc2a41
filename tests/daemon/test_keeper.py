"""The keeper: one a run, killed and started again, and what it answers."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir import control
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.wire import endpoints
from dpo_telemetry.wire.client import WireSource
from dpo_telemetry.wire.endpoints import Endpoints, address
from dpo_telemetry.wire.frames import pack, unpack
from dpo_telemetry.wire.messages import (
    MAX_REQUEST_BYTES,
    TOPIC_BUDGET,
    Budget,
    BudgetRequest,
    ControlRequest,
    Delta,
    ErrorReply,
    HelloReply,
    HelloRequest,
    ReadReply,
    ReadRequest,
)

from .conftest import Home

Eventually = Callable[..., Any]
Ended = Callable[[RunDirectory], HostExit]
RANK_FILE = "attempts/001/events/rank-00000.jsonl"


class Mirror:
    """A client that writes down what it is handed."""

    def __init__(self, source: WireSource) -> None:
        self.source = source
        self.files: dict[str, bytes] = {}

    def poll(self) -> None:
        for chunk in self.source.poll(0.05):
            have = self.files.setdefault(chunk.file, b"")
            assert chunk.offset == len(have), f"{chunk.file}: lost or doubled"
            self.files[chunk.file] = have + chunk.data

    def has(self, file: str, size: int) -> bool:
        self.poll()
        return len(self.files.get(file, b"")) >= size

    def equals(self, run: RunDirectory) -> bool:
        self.poll()
        paths = [run.run_file, *(p for a in run.attempts() for p in a.path.rglob("*") if p.suffix != ".log")]
        return self.files == {
            path.relative_to(run.path).as_posix(): path.read_bytes() for path in paths if path.is_file()
        }


def endpoints_of(run: RunDirectory) -> Endpoints:
    found = endpoints.of_run(run)
    assert found is not None
    return found


@pytest.fixture
def served(home: Home, eventually: Eventually) -> Iterator[RunDirectory]:
    """A run that is written by the test, with a keeper and no job."""
    run = home.new_run()
    with home.keeper(run):
        eventually(lambda: endpoints.of_run(run), "the keeper's sockets")
        yield run


@pytest.fixture
def mirror(served: RunDirectory) -> Iterator[Mirror]:
    with WireSource(endpoints_of(served)) as source:
        yield Mirror(source)


def append(run: RunDirectory, data: bytes) -> None:
    with (run.path / RANK_FILE).open("ab") as file:
        file.write(data)


def test_a_keeper_killed_and_started_again_serves_on_with_nothing_lost_or_doubled(
    home: Home, eventually: Eventually, ended: Ended
) -> None:
    run = home.start(STANDIN_STEPS="10000", STANDIN_NAN="3")
    with WireSource(endpoints_of(run)) as source:
        mirror = Mirror(source)
        eventually(lambda: mirror.has(RANK_FILE, 3000), "the first steps")
        eventually(lambda: read_run(run).recorded_alerts, "the first alert")
        os.kill(source.hello().pid, signal.SIGKILL)
        eventually(lambda: endpoints.of_run(run) is None, "the sockets of the dead keeper to be seen as dead")
        before = (run.path / RANK_FILE).stat().st_size
        eventually(lambda: (run.path / RANK_FILE).stat().st_size > before, "the job going on")
        kept = home.daemon("keep")
        assert kept.returncode == 0, kept.stderr
        eventually(lambda: mirror.has(RANK_FILE, before + 3000), "steps through the new keeper")
        assert home.daemon("stop").returncode == 0
        ended(run)
        eventually(lambda: mirror.has("attempts/001/events/keeper-2.jsonl", 1), "the new keeper's own file")
        eventually(lambda: mirror.equals(run), "the same files on both sides", 60)
    alerts = [(alert.code, alert.metric) for alert in read_run(run).recorded_alerts]
    assert len(alerts) == len(set(alerts))
    assert "nonfinite" in {code for code, _ in alerts}


def test_a_second_keeper_is_refused_in_one_line(served: RunDirectory) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "dpo_daemon.keeper", str(served.path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "serves this run already" in second.stderr


def test_a_socket_that_somebody_listens_at_is_not_taken_away(home: Home) -> None:
    run = home.new_run()
    where = endpoints.prepare(run.info().id)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where.watch))
        listener.listen()
        result = home.daemon("keep", run.path)
        assert endpoints.listens(where.watch)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "another process listens here" in result.stderr


def test_socket_files_of_a_dead_keeper_are_replaced(home: Home) -> None:
    run = home.new_run()
    where = endpoints.prepare(run.info().id)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(where.watch))
    assert home.daemon("keep", run.path).returncode == 0
    assert endpoints_of(run) == where


def test_socket_files_are_for_the_owner_only(served: RunDirectory) -> None:
    where = endpoints_of(served)
    for path in (where.publish, where.watch, where.control):
        assert path.stat().st_mode & 0o077 == 0


def test_a_socket_file_that_was_removed_is_bound_again(
    served: RunDirectory, mirror: Mirror, eventually: Eventually
) -> None:
    where = endpoints_of(served)
    for path in (where.publish, where.watch, where.control):
        path.unlink()
    eventually(lambda: endpoints.of_run(served), "the sockets to be bound again")
    append(served, b'{"k":"later"}\n')
    eventually(lambda: mirror.has(RANK_FILE, 14), "the line")
    with WireSource(where) as late:
        eventually(lambda: late.poll(0.05), "a client that came after the removal")


def test_a_keeper_whose_runtime_directory_is_removed_serves_on_where_clients_find_it(
    home: Home, eventually: Eventually
) -> None:
    run = home.new_run()
    with home.keeper(run):
        before = eventually(lambda: endpoints.of_run(run), "the keeper's sockets")
        shutil.rmtree(os.environ["XDG_RUNTIME_DIR"])
        after = eventually(lambda: endpoints.of_run(run), "the sockets in another folder")
        assert after != before
        append(run, b'{"k":"later"}\n')
        with WireSource(after) as source:
            mirror = Mirror(source)
            eventually(lambda: mirror.has(RANK_FILE, 14), "the line")
        with after.lock.open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shutil.rmtree(after.folder)


def test_a_keeper_that_finds_no_place_for_its_sockets_tries_again(
    home: Home, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = home.new_run()
    with home.keeper(run):
        eventually(lambda: endpoints.of_run(run), "the keeper's sockets")
        runtime = os.environ["XDG_RUNTIME_DIR"]
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        next_place = endpoints.prepare(run.info().id)
        with next_place.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(runtime)
            eventually(lambda: "cannot be bound again yet" in run.keeper_log.read_text(), "the keeper's word")
        assert eventually(lambda: endpoints.of_run(run), "the sockets once the lock is free") == next_place
    shutil.rmtree(next_place.folder)


def test_a_torn_line_is_not_served_until_it_is_whole(
    served: RunDirectory, mirror: Mirror, eventually: Eventually
) -> None:
    append(served, b'{"k":"one"}\n{"k":"tw')
    eventually(lambda: mirror.has(RANK_FILE, 12), "the whole line")
    reply = ask(served, ReadRequest(file=RANK_FILE, start=0, end=1000))
    assert reply == ReadReply(file=RANK_FILE, start=0, data=b'{"k":"one"}\n')
    append(served, b'o"}\n')
    eventually(lambda: mirror.has(RANK_FILE, 24), "the rest of the line")
    assert mirror.files[RANK_FILE] == b'{"k":"one"}\n{"k":"two"}\n'


def test_a_client_that_sleeps_through_megabytes_ends_with_the_same_bytes(
    served: RunDirectory, mirror: Mirror, eventually: Eventually
) -> None:
    eventually(lambda: mirror.has("run.json", 1), "the first files")
    line = b'{"k":"later","filler":"' + b"x" * 4000 + b'"}\n'
    for _ in range(20):
        append(served, line * 64)
    size = (served.path / RANK_FILE).stat().st_size
    with WireSource(endpoints_of(served)) as other:
        awake = Mirror(other)
        eventually(lambda: awake.has(RANK_FILE, size), "a client that is awake")
    eventually(lambda: mirror.has(RANK_FILE, size), "the client that slept")
    assert mirror.files[RANK_FILE] == line * 64 * 20


def ask(run: RunDirectory, request: msgspec.Struct, channel: str = "watch") -> object:
    (reply,) = exchange(run, [pack(request)], channel)  # type: ignore[arg-type]
    return unpack(reply)[1]


def exchange(run: RunDirectory, messages: list[list[bytes]], channel: str = "watch") -> list[list[bytes]]:
    """Replies to raw messages; a hello behind them shows that no more are to come."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        dealer = context.socket(zmq.DEALER)
        dealer.connect(address(endpoints_of(run).folder / channel))
        for frames in messages:
            dealer.send_multipart(frames)
        dealer.send_multipart(pack(HelloRequest(), id=4711))
        replies: list[list[bytes]] = []
        while dealer.poll(10_000):
            reply = dealer.recv_multipart()
            if unpack(reply)[0].id == 4711:
                return replies
            replies.append(reply)
        raise AssertionError("no hello came back")
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("channel", ["watch", "control"])
def test_what_is_no_request_is_dropped_and_the_service_goes_on(served: RunDirectory, channel: str) -> None:
    header = msgspec.msgpack.encode({"protocol": 1, "kind": "dance_request", "id": 1})
    replies = exchange(
        served,
        [
            [b""],
            [b"\xc1\xc1"],
            [b"\xc1", b"\xc1", b"\xc1"],
            [header, b"\x80"],
            [os.urandom(MAX_REQUEST_BYTES + 1), b"\x80"],
            pack(Delta(file="run.json", offset=0, data=b"a reply is no request")),
        ],
        channel,
    )
    assert replies == []


def test_a_client_of_another_version_is_told_so(served: RunDirectory) -> None:
    header = msgspec.msgpack.encode({"protocol": 99, "kind": "hello_request", "id": 1})
    (reply,) = exchange(served, [[header, b"\x80"]])
    body = unpack(reply)[1]
    assert isinstance(body, ErrorReply)
    assert (body.code, body.message) == (
        "version",
        "this keeper speaks protocol 1, you 99; update the keeper",
    )


@pytest.mark.parametrize(
    "file", ["../secret", "/etc/passwd", "keeper.log", "control/x.json", "attempts/001/logs/../../../secret"]
)
def test_only_files_of_the_run_can_be_read(served: RunDirectory, file: str) -> None:
    (served.path.parent / "secret").write_text("secret")
    reply = ask(served, ReadRequest(file=file, start=0, end=100))
    assert isinstance(reply, ErrorReply)
    assert reply.code == "not_found"


def test_hello_names_the_run_and_the_keeper(served: RunDirectory) -> None:
    reply = ask(served, HelloRequest(client="a test"))
    assert isinstance(reply, HelloReply)
    assert (reply.run_id, reply.run_name) == (served.info().id, served.name)
    assert "series_request" in reply.capabilities


def test_series_are_downsampled_with_their_extremes_and_say_what_they_reflect(
    served: RunDirectory, mirror: Mirror, eventually: Eventually
) -> None:
    values = [1.0] * 1000
    values[700] = 50.0
    lines = [
        events.encode(
            events.Step(**events.stamp(), step=n + 1, metrics={"loss": "nan" if n == 3 else v})
        )
        for n, v in enumerate(values)
    ]  # fmt: skip
    append(served, b"".join(lines))
    size = (served.path / RANK_FILE).stat().st_size
    eventually(lambda: mirror.has(RANK_FILE, size), "the steps")
    reply = mirror.source.series("loss", buckets=10)
    assert len(reply.first_steps) == 10
    assert max(reply.high) == 50.0
    assert reply.nonfinite == [1] + [0] * 9
    assert reply.offsets[RANK_FILE] == size
    with pytest.raises(TelemetryError, match="nothing: no such metric"):
        mirror.source.series("nothing", buckets=10)


def test_plan_against_measurement_is_published_when_it_changes_and_told_to_whoever_asks(
    home: Home, eventually: Eventually
) -> None:
    run = home.new_run()
    run.attempt(1).plan_file.write_bytes(b'{"per_gpu": [{"phases": {"step": {"adapters": 200}}}]}')
    with home.keeper(run):
        where = eventually(lambda: endpoints.of_run(run), "the keeper's sockets")
        with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
            subscriber.connect(address(where.publish))
            subscriber.subscribe(TOPIC_BUDGET)

            def published(size: int) -> Budget | None:
                # Again and again, since what is published before a subscription arrives is lost.
                append(
                    run,
                    events.encode(
                        events.Memory(**events.stamp(), phase="train", components={"adapters": size})
                    ),
                )
                if not subscriber.poll(100):
                    return None
                body = unpack(subscriber.recv_multipart()[1:])[1]
                assert isinstance(body, Budget)
                return body

            sizes = iter(range(201, 1000))
            (held,) = eventually(lambda: published(next(sizes)), "a budget").ranks
        one = held.components["adapters"]
        assert one.planned_bytes == 200
        assert one.difference_bytes == one.measured_bytes - 200 > 0
        largest = next(sizes) - 1
        reply = eventually(lambda: told(run, largest), "all that was measured")
        assert (reply.attempt, [told.rank for told in reply.ranks]) == (1, [0])


def told(run: RunDirectory, size: int) -> Budget | None:
    """The keeper's answer, once it knows of a measurement of so many bytes."""
    reply = ask(run, BudgetRequest())
    assert isinstance(reply, Budget)
    return reply if reply.ranks[0].components["adapters"].measured_bytes == size else None


def test_a_request_becomes_a_file_for_the_ranks(served: RunDirectory, mirror: Mirror) -> None:
    reply = mirror.source.request("save", issuer="a test")
    (request,) = control.pending(served, 1)
    assert (request.id, request.action, request.issuer) == (reply.request_id, "save", "a test")


def test_a_request_on_the_watch_socket_is_refused(served: RunDirectory) -> None:
    reply = ask(served, ControlRequest(action="stop"))
    assert isinstance(reply, ErrorReply)
    assert reply.code == "refused"
    assert control.pending(served, 1) == []


def test_raw_logs_are_read_on_request(served: RunDirectory, mirror: Mirror, eventually: Eventually) -> None:
    served.attempt(1).log_file(0).write_bytes(b"line one\nline two\n")
    file = "attempts/001/logs/rank-00000.log"
    eventually(lambda: mirror.has("run.json", 1), "the keeper")
    assert mirror.source.log_files() == {file: 18}
    assert mirror.source.read_log(file, 5, 13) == b"one\nline"
    assert file not in mirror.files


def test_no_keeper_is_an_error_in_one_line(tmp_path: Path) -> None:
    with WireSource(Endpoints(tmp_path)) as source, pytest.raises(TelemetryError, match="no keeper answered"):
        source.hello(timeout_s=0.2)


STOPS = "\n[alerts]\nloss_spike = 'stop'\nnonfinite = 'stop'\n"


def test_an_alert_that_stops_asks_the_ranks_once_and_a_metric_that_is_no_number_does_not(
    home: Home, eventually: Eventually
) -> None:
    run = home.new_run()
    with run.attempt(1).profile_file.open("a") as profile:
        profile.write(STOPS)
    with home.keeper(run):
        eventually(lambda: endpoints.of_run(run), "the keeper's sockets")
        append(run, _steps(1, {"logits/chosen": "nan"}))
        eventually(lambda: read_run(run).recorded_alerts, "the warning")
        assert control.pending(run, 1) == []
        append(run, _steps(2, {"loss": "nan"}))
        (request,) = eventually(lambda: control.pending(run, 1), "the request")
        assert (request.action, request.issuer) == ("stop", "keeper: nonfinite at step 2")
        append(run, _steps(3, {"loss": "nan", "grad_norm": "nan"}))
        eventually(lambda: len(read_run(run).recorded_alerts) == 3, "the third alert")
        assert len(control.pending(run, 1)) == 1


def _steps(step: int, metrics: dict[str, events.Number]) -> bytes:
    return events.encode(events.Step(**events.stamp(), step=step, metrics={"loss": 0.69, **metrics}))


def test_a_resumed_attempt_is_stopped_for_what_it_does_itself_and_not_for_what_was_told_before(
    home: Home, eventually: Eventually
) -> None:
    run = home.new_run()
    start = events.Start(
        **events.stamp(), role="rank", host="h", pid=1, boot_id="b", process_started=1.0, rank=0, resumed_from_step=5
    )  # fmt: skip
    append(run, _steps(3, {"loss": "nan"}))
    second = create_attempt(run, run.attempt(1).profile_file.read_text() + STOPS, b"{}")
    file = second.event_file("rank-00000")
    with file.open("ab") as rank:
        rank.write(events.encode(start) + _steps(6, {"logits/chosen": "nan"}))
    with home.keeper(run):
        eventually(lambda: read_run(run).recorded_alerts, "the alert of the second attempt")
        assert control.pending(run, 2) == []
        with file.open("ab") as rank:
            rank.write(_steps(7, {"loss": "nan"}))
        (request,) = eventually(lambda: control.pending(run, 2), "the request")
        assert request.action == "stop"
