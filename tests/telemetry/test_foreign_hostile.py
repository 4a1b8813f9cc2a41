"""Files that are no logs, broken or meant to harm: one line for the user, or what could be read."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign.log import MAX_METRICS, ForeignLog
from dpo_telemetry.foreign.open import open_log
from dpo_telemetry.foreign.read import read_foreign
from dpo_tui.headless.result import result_of

from . import foreign_logs as logs

ROWS = logs.history(12)
WHOLE = {
    "trainer state": logs.trainer_state(ROWS),
    "trainer state on one line": logs.compact_state(ROWS),
    "list": logs.json_list(ROWS),
    "JSON lines": logs.json_lines(ROWS),
    "CSV": logs.table(ROWS),
    "output": logs.printed(ROWS),
    "event file": logs.event_file(ROWS),
    "notebook": logs.notebook(logs.stream_output(logs.printed(ROWS).decode())),
    "notebook with a table": logs.notebook(
        logs.table_output(["Step", "Training Loss"], [["1", "0.7"], ["2", "0.6"]])
    ),
    "compressed": logs.packed(logs.json_lines(logs.history(60))),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def read(path: Path, data: bytes) -> ForeignLog:
    path.write_bytes(data)
    return read_foreign(path)


def losses(log: ForeignLog) -> list[float]:
    return [float(value) for value in log.series.effective("loss").values]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a": 1, "b": [1, 2, 3]}', id="object"),
        pytest.param(b'[{"id": 1, "age": 5}]', id="list of other things"),
        pytest.param(b'{"id": 1, "age": 5}\n{"id": 2, "age": 6}\n', id="lines of other things"),
        pytest.param(b"id,age\n1,5\n2,6\n", id="table of other things"),
        pytest.param(b'{"loss": "high"}\n', id="no number"),
        pytest.param(b'{"train_runtime": 5.0, "train_loss": 0.5}\n', id="summary"),
        pytest.param(b"step,loss\n", id="header"),
        pytest.param(b"step,loss\n,\n,\n", id="empty cells"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b'[{"a":' * 50_000, id="deep list"),
        pytest.param(b'{"a":' * 200_000, id="deep object"),
        pytest.param(b'{"a":' * 100 + b"\n" + b'{"b":' * 200_000, id="deep lines"),
        pytest.param(b"{'loss': " * 50_000, id="deep output"),
        pytest.param(b"[ {" * 100_000, id="many lists"),
        pytest.param(b'{"log_history": [' + b'{"a":' * 100_000, id="deep state"),
        pytest.param(logs.notebook(), id="notebook without output"),
        pytest.param(b"\x00" * 100_000, id="zeros"),
        pytest.param(b"\xff\xfe\x00\xd8", id="broken UTF-16"),
        pytest.param(b"\x1b]0;evil\x07\x1b[2J" * 100, id="escapes"),
        pytest.param(logs.record(b"\x1a\x0dbrain.Event:2"), id="event file without events"),
        pytest.param(logs.record(b"\xff" * 50) * 10, id="records of garbage"),
        pytest.param(b"SQLite format 3\0" + bytes(range(256)) * 500, id="data base"),
    ],
)
def test_what_holds_no_row_of_training_is_nothing_to_diagnose(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(TelemetryError, match="nothing to diagnose"):
        open_log(path)


@pytest.mark.parametrize("data", [b"\x1f\x8b", b"\x1f\x8b" + b"x" * 1000])
def test_what_is_no_gzip_after_all_is_told(path: Path, data: bytes) -> None:
    with pytest.raises(TelemetryError, match="is damaged: it cannot be decompressed"):
        read(path, data)


def test_an_unreadable_notebook_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = WHOLE["notebook"]
    with pytest.raises(TelemetryError, match="looks like a notebook and is none"):
        read(path, data[: len(data) // 2])
    monkeypatch.setattr("dpo_telemetry.foreign.notebook.MAX_BYTES", 1 << 20)
    with pytest.raises(TelemetryError, match="is larger than 1 MiB, the most that is read of this format"):
        read(path, data + b" " * (2 << 20))


def test_columns_of_several_runs_are_refused(path: Path) -> None:
    path.write_bytes(b"Step,a - train/loss,b - train/loss,c\x1b[2J - train/loss\n1,0.7,0.6,0.5\n")
    with pytest.raises(TelemetryError, match=r"holds 3 runs \(a, b, c\); export one of them"):
        open_log(path)


@pytest.mark.parametrize("name", sorted(set(WHOLE) - {"notebook", "notebook with a table"}))
@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.95])
def test_a_truncated_log_gives_the_rows_before_the_cut(path: Path, name: str, part: float) -> None:
    data = WHOLE[name]
    whole = losses(read(path, data))
    found = read(path, data[: int(part * len(data))])
    assert 0 < len(losses(found)) <= len(whole)
    assert losses(found) == whole[: len(losses(found))]


def test_a_torn_document_says_so(path: Path) -> None:
    assert read(path, WHOLE["trainer state"][:-400]).lines_not_understood == 1
    assert read(path, WHOLE["compressed"][:-20]).lines_not_understood >= 1
    assert read(path, WHOLE["event file"][:-3]).lines_not_understood == 1


def test_a_broken_row_costs_itself(path: Path) -> None:
    data = WHOLE["trainer state"].replace(b'"loss": 0.671875', b'"loss": 0.6718?5', 1)
    assert data != WHOLE["trainer state"]
    found = read(path, data)
    assert (len(losses(found)), found.lines_not_understood) == (11, 1)
    lines = WHOLE["JSON lines"].replace(b'"loss": 0.671875', b'"loss": 0.6718?5', 1)
    found = read(path, lines)
    assert (len(losses(found)), found.lines_not_understood) == (11, 1)
    found = read(path, WHOLE["CSV"] + b"1,2\n")
    assert (len(losses(found)), found.lines_not_understood) == (12, 1)


def test_a_damaged_event_costs_itself_and_a_damaged_length_all_that_follows(path: Path) -> None:
    data = bytearray(logs.event_file([{"loss": n / 16, "step": n} for n in (1, 2, 3, 4)]))
    size = (len(data) - len(logs.event_file([]))) // 4
    third = len(data) - 2 * size
    data[third + size - 6] ^= 0xFF
    found = read(path, bytes(data))
    assert (losses(found), found.lines_not_understood) == ([1 / 16, 2 / 16, 4 / 16], 1)
    data[third] ^= 0xFF
    found = read(path, bytes(data))
    assert (losses(found), found.lines_not_understood) == ([1 / 16, 2 / 16], 1)


def test_events_at_steps_that_no_training_reaches_are_counted(path: Path) -> None:
    events = [
        logs.record(logs.event(step, logs.field(5, logs.field(1, logs.simple_value("train/loss", loss)))))
        for step, loss in [(2**63 - 1, 9.0), (1, 0.7), (2**63 - 2, 9.0), (2**62, 9.0), (2, 0.6)]
    ]
    found = read(path, b"".join(events))
    assert losses(found) == [pytest.approx(0.7), pytest.approx(0.6)]
    assert found.lines_not_understood == 3


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_is_a_nan_and_no_warning(path: Path) -> None:
    value = logs.simple_value("train/loss", 1.0)[:-4] + b"\x01\x00\xa0\x7f"
    events = [logs.record(logs.event(step, logs.field(5, logs.field(1, value)))) for step in (1, 2)]
    assert all(math.isnan(loss) for loss in losses(read(path, b"".join(events))))


def test_long_records_between_events_are_passed_over(path: Path) -> None:
    length = (3 << 20).to_bytes(8, "little")
    picture = length + logs.masked_crc(length).to_bytes(4, "little") + bytes(3 << 20) + b"crc!"
    row = {"loss": 0.5, "step": 1}
    data = logs.event_file([row]) + picture + logs.event_file([{**row, "step": 2}])
    found = read(path, data)
    assert (found.series.effective("loss").steps.tolist(), found.lines_not_understood) == ([1, 2], 0)


def many_names(kind: str) -> bytes:
    count = MAX_METRICS + 500
    if kind == "JSON lines":
        return b"".join(b'{"loss": 0.5, "x%d": 1.0, "step": %d}\n' % (n, n) for n in range(count))
    if kind == "one row":
        return json.dumps([{"loss": 0.5, "step": 1, **{f"x{n}": n for n in range(count)}}]).encode()
    if kind == "CSV":
        names = ["step", "loss", *(f"x{n}" for n in range(count))]
        return (",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n").encode()
    if kind == "output":
        return b"".join(b"{'loss': 0.5, 'x%d': 1.0}\n" % n for n in range(count))
    return logs.event_file([{"loss": 0.5, "step": 1, **{f"x{n}": 1.0 for n in range(count)}}])


@pytest.mark.parametrize("kind", ["JSON lines", "one row", "CSV", "output", "event file"])
def test_metrics_are_bounded_and_what_is_left_out_is_counted(path: Path, kind: str) -> None:
    found = read(path, many_names(kind))
    assert len(found.series.names()) == MAX_METRICS
    assert "loss" in found.series.names()
    assert found.lines_not_understood > 0


def test_rows_that_each_bring_a_new_name_are_diagnosed_in_bounded_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpo_telemetry.foreign.open.MAX_CELLS", 1 << 20)
    monkeypatch.setattr("dpo_telemetry.foreign.open.CELLS_AT_ONCE", 1 << 18)
    path.write_bytes(
        b"".join(b'{"step": %d, "loss": 0.5, "x%d": 1}\n' % (n, min(n, 1000)) for n in range(20_000))
    )
    tracemalloc.start()
    log = open_log(path)
    result = result_of(log, "warning")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (result.rows, result.first_step, result.last_step) == (20_000, 0, 19_999)
    # Laid out whole, 20,000 rows of 1,002 metrics are 180 MB.
    assert peak < 40 << 20


ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "output": lambda: iter([b"{'loss': 0.7}\n", b"x", *[b"y" * (1 << 20)] * 64, b"\n{'loss': 0.6}\n"]),
    "dict": lambda: iter(
        [b"{'loss': 0.7}\n", b"{'loss': 0.5, 'x", *[b"y" * (1 << 20)] * 64, b"\n{'loss': 0.6}\n"]
    ),
    "JSON lines": lambda: iter(
        [b'{"loss": 0.7}\n{"loss": 0.7, "x', *[b"y" * (1 << 20)] * 64, b'"}\n{"loss": 0.6}\n']
    ),
    "list": lambda: iter(
        [b'[{"loss": 0.7}, {"loss": 0.7, "x', *[b"y" * (1 << 20)] * 64, b'"}, {"loss": 0.6}]']
    ),
    "CSV": lambda: iter([b"step,loss\n1,0.7\n1,", *[b"7" * (1 << 20)] * 64, b"\n2,0.6\n"]),
    "quoted CSV": lambda: iter([b'step,loss\n1,0.7\n1,"', *[b"7\n" * (1 << 17)] * 4, b'"\n2,0.6\n']),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_line_is_passed_over_in_bounded_memory(path: Path, name: str) -> None:
    with path.open("wb") as file:
        file.writelines(ENDLESS[name]())
    tracemalloc.start()
    found = read_foreign(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert losses(found)[0] == 0.7
    assert losses(found)[-1] == 0.6 or name == "quoted CSV"
    assert peak < 24 << 20


def test_a_compressed_bomb_is_read_in_bounded_memory(path: Path) -> None:
    path.write_bytes(logs.packed(b"{'loss': 0.7}\n" + b"x" * (100 << 20)))
    tracemalloc.start()
    found = read_foreign(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert losses(found) == [0.7]
    assert peak < 24 << 20


def assert_told_or_read(path: Path) -> None:
    """One line for the user, or rows."""
    told, rows = "", 0
    try:
        log = open_log(path)
        rows = len(log.series.train) + len(log.series.eval)
    except TelemetryError as error:
        told = error.format_message()
    assert bool(told) != bool(rows)
    assert "\n" not in told


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from(
        [b"", b"{", b"[{", b'{"log_history": [', b'{"loss": 0.5}\n', b"step,loss\n", b"\x1f\x8b\x08", b"\xff\xfe",
         logs.event_file([]), b'{"nbformat": 4, "cells": [', b"{'loss': "]
    ),
    parts=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b'{"loss": 0.5, "step": 1}', b", ", b"]", b"}", b"\n", b"\r", b"NaN", b'"', b"1,2\n", b"\\",
                             b'"step": 1e999', b'"loss":', b"{'loss': nan, 'step': 2}", logs.bar(1, 2).encode(),
                             b"9" * 400, b"\x00", b'{"loss": 1, "step": -99999999999999999999}'])
        ),
        max_size=25,
    ),
)  # fmt: skip
def test_no_bytes_make_a_reader_raise_anything_else(tmp_path: Path, head: bytes, parts: list[bytes]) -> None:
    path = tmp_path / "random"
    path.write_bytes(head + b"".join(parts))
    assert_told_or_read(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(WHOLE)),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=8)), min_size=1, max_size=6
    ),
)
def test_no_damage_to_a_log_makes_its_reader_raise_anything_else(
    tmp_path: Path, name: str, edits: list[tuple[float, int, bytes]]
) -> None:
    data = bytearray(WHOLE[name])
    for place, length, put in edits:
        at = int(place * len(data))
        data[at : at + length] = put
    path = tmp_path / "damaged"
    path.write_bytes(bytes(data))
    assert_told_or_read(path)


def test_an_event_file_without_a_metric_of_training_is_nothing_to_diagnose(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(logs.event_file([{"step": step, "gpu/mem": 5.0} for step in range(1, 30)]))
    with pytest.raises(TelemetryError, match="nothing to diagnose"):
        open_log(path)
