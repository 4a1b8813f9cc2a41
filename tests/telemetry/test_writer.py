"""One writer a file: order, nothing lost without being counted, and a step that never waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.writer import EventWriter

Eventually = Callable[..., Any]


def heartbeat(step: int) -> events.Heartbeat:
    return events.Heartbeat(**events.stamp(), step=step)


def read(path: Path) -> list[events.AnyEvent]:
    """Every event of a file; a torn or damaged line fails."""
    found = [events.decode(line) for line in path.read_bytes().splitlines()]
    assert None not in found
    return [event for event in found if event is not None]


def steps(path: Path) -> list[int | None]:
    return [event.step for event in read(path) if isinstance(event, events.Heartbeat)]


def lost(path: Path) -> int:
    return sum(event.lost for event in read(path) if isinstance(event, events.LogGap))


def test_events_lie_in_the_file_in_the_order_they_were_put(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    for step in range(5000):
        writer.put(heartbeat(step))
    writer.close()
    assert steps(writer.path) == list(range(5000))


def test_a_line_reaches_the_file_without_a_flush(tmp_path: Path, eventually: Eventually) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.put(heartbeat(7))
    eventually(lambda: writer.path.read_bytes().endswith(b"\n"), "the line is in the file")
    assert steps(writer.path) == [7]
    writer.close()


def test_a_flush_returns_when_everything_put_before_it_is_in_the_file(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    for step in range(500):
        writer.put(heartbeat(step))
    assert writer.flush()
    assert len(steps(writer.path)) == 500
    writer.close()


def test_events_beyond_the_capacity_are_lost_and_counted(tmp_path: Path, eventually: Eventually) -> None:
    writer = EventWriter(tmp_path / "events.jsonl", capacity=1)
    put = 0

    def overflowed() -> bool:
        nonlocal put
        for _ in range(100):
            writer.put(heartbeat(put))
            put += 1
        return lost(writer.path) > 0 if writer.flush() else False

    eventually(overflowed, "more was put than a queue of one event holds")
    writer.close()
    assert len(steps(writer.path)) + lost(writer.path) == put
    assert {event.reason for event in read(writer.path) if isinstance(event, events.LogGap)} == {"queue full"}


def test_a_gap_is_written_although_no_event_follows_it(tmp_path: Path, eventually: Eventually) -> None:
    writer = EventWriter(tmp_path / "events.jsonl", capacity=0)
    writer.put(heartbeat(1))
    eventually(lambda: lost(writer.path) == 1, "the gap is in the file")
    writer.close()


DISK_FULL = """
import resource, sys, time
from pathlib import Path
from dpo_telemetry import events
from dpo_telemetry.writer import EventWriter

path, limit = Path(sys.argv[1]), 10_007  # in the middle of a line
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
writer = EventWriter(path, capacity=500)
for step in range(5000):
    writer.put(events.Heartbeat(**events.stamp(), step=step))
    if step == 1000:
        deadline = time.monotonic() + 20
        while path.stat().st_size < limit and time.monotonic() < deadline:
            time.sleep(0.01)
assert path.stat().st_size == limit, path.stat().st_size
assert not writer.flush(timeout_s=0.1)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert writer.flush(timeout_s=20)
writer.put(events.Heartbeat(**events.stamp(), step=5000))
writer.close()
"""


def test_a_full_disk_costs_events_that_are_counted_and_no_line_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    subprocess.run([sys.executable, "-c", DISK_FULL, str(path)], check=True, timeout=60)
    written = steps(path)
    assert len(written) + lost(path) == 5001
    assert lost(path) > 0
    assert Counter(written).most_common(1)[0][1] == 1
    assert written[-1] == 5000


DISK_FULL_AT_THE_END = """
import resource, sys, threading, time
from pathlib import Path
from dpo_telemetry import events
from dpo_telemetry.writer import EventWriter

path = Path(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
writer = EventWriter(path)
for step in range(100):
    writer.put(events.Heartbeat(**events.stamp(), step=step))
while path.stat().st_size < 1000:
    time.sleep(0.01)
if sys.argv[2] == "freed":
    threading.Timer(0.3, resource.setrlimit, (resource.RLIMIT_FSIZE, (hard, hard))).start()
    writer.close(timeout_s=20)
else:
    writer.close(timeout_s=0.1)
    assert not writer._thread.is_alive()
"""


def test_closing_waits_for_a_full_disk_to_be_freed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    subprocess.run([sys.executable, "-c", DISK_FULL_AT_THE_END, str(path), "freed"], check=True, timeout=60)
    assert steps(path) == list(range(100))


def test_closing_gives_up_on_a_disk_that_stays_full(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    subprocess.run([sys.executable, "-c", DISK_FULL_AT_THE_END, str(path), "full"], check=True, timeout=60)
    assert path.stat().st_size == 1000


def test_a_second_writer_on_the_same_file_is_refused(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    with pytest.raises(TelemetryError, match="already has a writer"):
        EventWriter(writer.path)
    writer.close()


def test_a_file_that_cannot_be_made_is_one_line_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError, match="cannot be written: No such file or directory"):
        EventWriter(tmp_path / "missing" / "events.jsonl")


def test_closing_twice_is_fine_and_nothing_is_written_afterwards(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.put(heartbeat(1))
    writer.close()
    writer.close()
    writer.put(heartbeat(2))
    assert writer.flush()
    assert steps(writer.path) == [1]


def test_heartbeats_come_from_the_writers_own_thread(tmp_path: Path, eventually: Eventually) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.set_heartbeat(0.01, lambda: heartbeat(0))
    eventually(lambda: len(steps(writer.path)) >= 3, "three heartbeats without a put")
    writer.close()


def test_a_heartbeat_that_raises_is_a_counted_gap_and_the_events_go_on(
    tmp_path: Path, eventually: Eventually
) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.set_heartbeat(60.0, lambda: heartbeat(1 // 0))
    eventually(lambda: lost(writer.path) == 1, "the gap is in the file")
    writer.put(heartbeat(3))
    writer.close()
    assert steps(writer.path) == [3]


TRAINS = """
import sys, time
from pathlib import Path
from dpo_telemetry import events
from dpo_telemetry.writer import EventWriter

writer = EventWriter(Path(sys.argv[1]))
for step in range(100):
    for _ in range(100):
        writer.put(events.Step(**events.stamp(), step=step, metrics={"loss": 0.69}))
    time.sleep(0.02)
    print(step, flush=True)
time.sleep(60)
"""


def test_after_kill_9_everything_before_the_last_step_is_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    process = subprocess.Popen([sys.executable, "-c", TRAINS, str(path)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        while process.stdout.readline() != b"99\n":
            pass
        os.kill(process.pid, signal.SIGKILL)
    whole = path.read_bytes()
    found = Counter(
        event.step
        for line in whole[: whole.rfind(b"\n") + 1].splitlines()
        if isinstance(event := events.decode(line), events.Step)
    )
    assert [found[step] for step in range(99)] == [100] * 99
