"""One model of a run, whatever the way its bytes took."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_telemetry import events
from dpo_telemetry.reader import source as source_module
from dpo_telemetry.reader.attempt import AttemptView
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk, DirectorySource
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunDirectory

from .conftest import START_S, Lines

NewRun = Callable[[], RunDirectory]
RANK_0 = "attempts/001/events/rank-00000.jsonl"
"""What a test of the model calls the file of rank 0."""


def model_of(*chunks: Chunk) -> RunModel:
    model = RunModel()
    model.apply(chunks)
    return model


def read(run: RunDirectory) -> RunModel:
    model, source = RunModel(), DirectorySource(run)
    while chunks := source.poll():
        model.apply(chunks)
    return model


def append(run: RunDirectory, data: bytes, attempt: int = 1, writer: str = "rank-00000") -> None:
    with run.attempt(attempt).event_file(writer).open("ab") as file:
        file.write(data)


def end(run: RunDirectory, code: int | None = 0, signal: str = "") -> None:
    exit_ = HostExit(host="node1", code=code, signal=signal, ended=START_S)
    run.attempt(1).exit_file("node1").write_bytes(msgspec.json.encode(exit_))


def seen(model: RunModel) -> dict[str, Any]:
    """Everything that a screen would show of a model."""
    series = {
        name: (model.series.effective(name), model.series.superseded(name)) for name in model.series.names()
    }
    return {
        "series": {
            name: [(s.steps.tolist(), list(map(str, s.values.tolist())), s.wall_s.tolist()) for s in pair]
            for name, pair in series.items()
        },
        "work": {name: model.work.effective(name).values.tolist() for name in model.work.names()},
        "alerts": model.alerts,
        "findings": model.diagnosis.findings(),
        "phase": model.phase,
        "memory": model.memory,
        "last_step": model.last_step,
        "step_time_s": model.step_time_s,
        "damaged": model.damaged_lines,
        "unknown": model.unknown_lines,
        "lost": model.lost_events,
        "offsets": model.offsets(),
        "attempts": {number: facts(attempt) for number, attempt in model.attempts.items()},
    }


def facts(attempt: AttemptView) -> dict[str, Any]:
    watched = {"budget": attempt.budget.ranks(), "memory_watch": attempt.memory_watch.alerts()}
    return vars(attempt) | watched


def a_whole_run(lines: Lines) -> bytes:
    """Sixty steps with about everything in between."""
    parts = [lines.start(max_steps=60), lines.phase("load"), lines.phase("load", "end"), lines.phase("train")]
    for step in range(1, 61):
        lines.now_s += 6.8
        nan = {"logits__rejected": float("nan")} if step == 31 else {}
        parts.append(lines.step(step, 6.8, loss=0.7 - step / 1000, rewards__chosen=0.01 * (step - 1), **nan))
        if step % 20 == 0:
            parts.append(lines.evaluation(step, eval_loss=0.69))
    lost = events.LogGap(**lines.stamp(), lost=3, reason="queue full")
    memory = events.Memory(**lines.stamp(), phase="train", components={"adapters": 5})
    parts += [lines.event(lost), lines.event(memory), b'{"k":"weather","v":7}\n', b"torn{\n", lines.exit()]
    return b"".join(parts)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 12_000), max_size=8))
def test_a_run_read_in_pieces_is_the_run_read_at_once(cuts: list[int]) -> None:
    data = a_whole_run(Lines())
    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = RunModel()
    for start, stop in zip([0, *ends], ends, strict=False):
        pieces.apply([Chunk(RANK_0, start, data[start:stop])])
    assert seen(pieces) == seen(model_of(Chunk(RANK_0, 0, data)))


def test_a_run_read_byte_by_byte_is_the_run_read_at_once(lines: Lines) -> None:
    data = a_whole_run(lines)
    model = RunModel()
    for at in range(len(data)):
        model.apply([Chunk(RANK_0, at, data[at : at + 1])])
    assert seen(model) == seen(model_of(Chunk(RANK_0, 0, data)))


FILES = [
    "run.json", RANK_0, "attempts/002/events/rank-00001.jsonl", "attempts/002/events/keeper-1.jsonl",
    "attempts/001/profile.toml", "attempts/001/plan.json", "attempts/002/exit-node1.json", "other/x.jsonl",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for kind in events.EVENT_TYPES for name in kind.__struct_fields__} - {"v", "t", "m"})
ROWS = st.fixed_dictionaries(
    {
        "k": st.sampled_from(sorted(events.KINDS)),
        "v": st.sampled_from([1, 2]),
        "t": st.floats(),
        "m": st.just(1),
    },
    optional=dict.fromkeys(FIELDS, JSON)
    | {
        "step": st.integers(),
        "metrics": st.dictionaries(
            st.sampled_from(["loss", "logps/chosen", "rewards/chosen"]), JSON, max_size=3
        ),
    },
)
DATA = st.one_of(
    st.binary(max_size=60),
    st.lists(ROWS, max_size=5).map(lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows)),
    st.sampled_from(
        [
            b"loss = 3\nadapter = 1\ntrain = []", b"[loss]\nbeta = 'x'\n[adapter]\npath = 1\ndropout = 'y'",
            b"x = " + b"[" * 5000, b"x = " + b"9" * 5000, b"[" * 5000, b"\xff", b'{"id": 1}',
        ]
    ),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FILES), DATA), max_size=6))
def test_whatever_the_files_hold_nothing_raises(files: list[tuple[str, bytes]]) -> None:
    model, sizes = RunModel(), dict.fromkeys(FILES, 0)
    for file, data in files:
        model.apply([Chunk(file, sizes[file], data)])
        sizes[file] += len(data)
        seen(model)
        assert model.max_steps is None or model.max_steps >= 0
        assert model.eta_s is None or model.eta_s >= 0


def test_a_gap_between_chunks_is_refused(lines: Lines) -> None:
    model = model_of(Chunk(RANK_0, 0, lines.start()))
    for file in (RANK_0, "attempts/001/plan.json"):
        with pytest.raises(ValueError, match="chunk starts at 1000"):
            model.apply([Chunk(file, 1000, b"{}")])


def test_a_file_that_is_sent_again_replaces_what_was_known(lines: Lines) -> None:
    exit_ = msgspec.json.encode(HostExit(host="node1", code=1, ended=START_S))
    chunk = Chunk("attempts/001/exit-node1.json", 0, exit_)
    model = model_of(chunk, chunk)
    assert [end.code for end in model.attempts[1].host_exits] == [1]


def test_a_source_hands_out_only_what_grew(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    source = DirectorySource(run)
    source.poll()
    append(run, lines.start())
    assert [(chunk.file, chunk.offset) for chunk in source.poll()] == [(RANK_0, 0)]
    assert source.poll() == []
    offset = source.offsets()[RANK_0]
    append(run, lines.step(1, loss=0.7))
    assert [(chunk.file, chunk.offset) for chunk in source.poll()] == [(RANK_0, offset)]


def test_while_an_attempt_lives_a_torn_tail_is_not_there_yet(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    line = lines.step(1, loss=0.7)
    append(run, lines.start() + line[:20])
    model, source = RunModel(), DirectorySource(run)
    model.apply(source.poll())
    assert (model.last_step, model.damaged_lines) == (0, 0)
    append(run, line[20:])
    model.apply(source.poll())
    assert (model.last_step, model.damaged_lines) == (1, 0)


def test_while_an_attempt_lives_zero_bytes_are_not_read_past(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    first, second = lines.step(1, loss=0.7), lines.step(2, loss=0.7)
    append(run, lines.start() + first + bytes(len(second)))
    model, source = RunModel(), DirectorySource(run)
    model.apply(source.poll())
    assert (model.last_step, model.damaged_lines) == (1, 0)
    with run.attempt(1).event_file("rank-00000").open("r+b") as file:
        file.seek(len(lines.start() + first))
        file.write(second)
    model.apply(source.poll())
    assert (model.last_step, model.damaged_lines) == (2, 0)


@pytest.mark.parametrize("tail", [b'{"k":"step","v":1', bytes(512), b'{"k":"st' + bytes(512)])
def test_once_an_attempt_has_ended_its_torn_tail_is_one_damaged_line(
    new_run: NewRun, lines: Lines, tail: bytes
) -> None:
    run = new_run()
    append(run, lines.start() + lines.step(1, loss=0.7) + tail)
    model, source = RunModel(), DirectorySource(run)
    model.apply(source.poll())
    assert model.damaged_lines == 0
    end(run, code=None, signal="SIGKILL")
    model.apply(source.poll())
    assert (model.last_step, model.damaged_lines) == (1, 1)


def test_a_new_attempt_settles_the_one_before(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    append(run, lines.start() + lines.step(1, loss=0.7) + bytes(64))
    create_attempt(run, "", b"{}")
    assert read(run).damaged_lines == 1


def test_a_live_file_without_a_newline_does_not_hold_up_the_reader(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_READ_BYTES", 1000)
    run = new_run()
    append(run, b"y" * 2500)
    source = DirectorySource(run)
    while source.poll():
        pass
    assert source.offsets()[RANK_0] == 2000


def test_a_later_attempt_waits_until_the_earlier_one_is_read(
    new_run: NewRun, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_READ_BYTES", 300)
    run = new_run()
    first, second = two_attempts(lines)
    append(run, first)
    create_attempt(run, "", b"{}")
    append(run, second, attempt=2)
    source, files = DirectorySource(run), []
    while chunks := source.poll():
        files += [chunk.file for chunk in chunks if chunk.file.endswith(".jsonl")]
    assert files == sorted(files)
    assert len(set(files)) == 2


def test_logs_are_read_on_request_and_nothing_else_is(new_run: NewRun) -> None:
    run = new_run()
    run.attempt(1).log_file(0).write_text("loading\n")
    source = DirectorySource(run)
    assert source.log_files() == {"attempts/001/logs/rank-00000.log": 8}
    assert source.read_log("attempts/001/logs/rank-00000.log", 2, 6) == b"adin"
    for file in ("run.json", "attempts/001/logs/../profile.toml", "/etc/passwd", "attempts/001/logs/x.log"):
        assert source.read_log(file, 0, 100) == b""


def two_attempts(lines: Lines) -> tuple[bytes, bytes]:
    """Twenty steps with a NaN at the end, and a resume from step 10 that is well."""
    first = lines.start() + b"".join(
        lines.step(step, loss=float("nan") if step > 18 else 0.69, rewards__chosen=0.1 * (step > 1))
        for step in range(1, 21)
    )
    lines.now_s += 600
    second = lines.start(resumed_from_step=10, max_steps=30) + b"".join(
        lines.step(step, loss=0.6, rewards__chosen=0.2) for step in range(11, 31)
    )
    return first, second


def test_after_a_resume_the_newest_values_are_effective_and_the_old_ones_kept(
    new_run: NewRun, lines: Lines
) -> None:
    run = new_run()
    first, second = two_attempts(lines)
    append(run, first)
    create_attempt(run, "", b"{}")
    append(run, second, attempt=2)
    model = read(run)
    loss = model.series.effective("loss")
    assert loss.steps.tolist() == list(range(1, 31))
    assert loss.values.tolist() == [0.69] * 10 + [0.6] * 20
    assert model.series.superseded("loss").steps.tolist() == list(range(11, 21))
    assert model.alerts == []


@pytest.mark.parametrize("chunk_bytes", [300, 1000, 1 << 20])
def test_superseded_rows_raise_no_alert_however_the_run_is_read(
    new_run: NewRun, lines: Lines, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(source_module, "MAX_READ_BYTES", chunk_bytes)
    run = new_run()
    first, second = two_attempts(lines)
    append(run, first)
    create_attempt(run, "", b"{}")
    append(run, second, attempt=2)
    assert read(run).alerts == []


def test_an_alert_stands_until_the_resumed_run_passes_the_step(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    first, second = two_attempts(lines)
    append(run, first)
    model, source = RunModel(), DirectorySource(run)
    model.apply(source.poll())
    create_attempt(run, "", b"{}")
    rows = second.splitlines(keepends=True)
    append(run, b"".join(rows[:5]), attempt=2)
    model.apply(source.poll())
    assert [alert.code for alert in model.alerts] == ["nonfinite"]
    append(run, b"".join(rows[5:]), attempt=2)
    model.apply(source.poll())
    assert model.alerts == []


def test_progress_is_that_of_the_newest_attempt(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    append(run, lines.start(max_steps=30) + b"".join(lines.step(n, 2.0, loss=0.7) for n in range(1, 21)))
    create_attempt(run, "", b"{}")
    append(run, lines.start(resumed_from_step=10, max_steps=30), attempt=2)
    model, source = RunModel(), DirectorySource(run)
    model.apply(source.poll())
    assert (model.last_step, model.eta_s) == (10, 40.0)
    append(run, lines.step(11, 2.0, loss=0.7), attempt=2)
    model.apply(source.poll())
    assert (model.last_step, model.eta_s) == (11, 38.0)


def test_what_another_rank_adds_to_a_step_is_no_row_of_its_own(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    append(run, lines.start() + lines.step(1, 2.0, loss=0.7) + lines.phase("train"))
    other = lines.start(rank=1) + lines.step(1, 9.0, loss=float("nan")) + lines.phase("save")
    append(run, other, writer="rank-00001")
    append(run, lines.step(1, 9.0, loss=9.0), writer="rank-00002")
    model = read(run)
    assert model.series.effective("loss").values.tolist() == [0.7]
    assert len(model.series.superseded("loss")) == 0
    assert model.step_time_s == 2.0
    assert model.phase is not None
    assert model.phase.name == "train"


def test_memory_is_kept_by_rank(new_run: NewRun, lines: Lines) -> None:
    run = new_run()
    for rank in (0, 1):
        memory = events.Memory(**lines.stamp(), phase="train", components={"adapters": rank + 1})
        append(run, lines.start(rank=rank) + lines.event(memory), writer=f"rank-{rank:05d}")
    memories = read(run).memory
    assert {rank: memory.components for rank, memory in memories.items()} == {
        0: {"adapters": 1}, 1: {"adapters": 2},
    }  # fmt: skip


def test_rules_know_the_profile_even_if_it_comes_last(lines: Lines) -> None:
    rows = b"".join(
        lines.step(n, logps__chosen=-536.0 - 4 * n, logps__rejected=-532.0, rewards__margins=0.05)
        for n in range(1, 6)
    )
    model = model_of(Chunk(RANK_0, 0, lines.start() + rows))
    assert [alert.severity for alert in model.alerts] == ["warning"]
    model.apply([Chunk("attempts/001/profile.toml", 0, b"[loss]\nbeta = 0.01\n")])
    assert [alert.severity for alert in model.alerts] == ["info"]


def test_recorded_alerts_stand_beside_those_of_the_rules_once_each(lines: Lines) -> None:
    recorded = [
        events.Alert(**lines.stamp(), code="oom", severity="critical", message="out of memory"),
        events.Alert(
            **lines.stamp(), code="nonfinite", severity="critical", message="m", metric="loss", step=1
        ),
    ]
    data = lines.start() + lines.step(1, loss=float("nan")) + b"".join(map(lines.event, recorded))
    model = model_of(Chunk(RANK_0, 0, data))
    assert sorted((alert.code, alert.metric) for alert in model.alerts) == [
        ("nonfinite", "loss"),
        ("oom", None),
    ]


def test_what_a_process_told_of_an_attempt_is_history_in_the_next(lines: Lines) -> None:
    oom = lines.event(events.Alert(**lines.stamp(), code="oom", severity="critical", message="out of memory"))
    model = model_of(Chunk(RANK_0, 0, lines.start() + oom))
    assert [alert.code for alert in model.alerts] == ["oom"]
    model.apply([Chunk("attempts/002/events/rank-00000.jsonl", 0, lines.start(resumed_from_step=0))])
    assert model.alerts == []
    assert [event.code for event in model.recorded_alerts] == ["oom"]


def test_what_a_keepers_rules_said_goes_when_a_new_attempt_passes_it(lines: Lines) -> None:
    said = events.Alert(
        **lines.stamp(), code="nonfinite", severity="critical", message="m", metric="loss", step=1
    )
    keeper = events.Start(
        **lines.stamp(), role="keeper", host="h", pid=1, boot_id="b", process_started=1.0, attempt=1
    )
    model = model_of(Chunk(RANK_0, 0, lines.start() + lines.step(1, loss=float("nan"))))
    model.apply([Chunk("attempts/001/events/keeper-1.jsonl", 0, lines.event(keeper) + lines.event(said))])
    assert [alert.code for alert in model.alerts] == ["nonfinite"]
    again = lines.start(resumed_from_step=0) + lines.step(1, loss=0.6)
    model.apply([Chunk("attempts/002/events/rank-00000.jsonl", 0, again)])
    assert model.alerts == []
    assert len(model.recorded_alerts) == 1


def test_a_folder_that_vanishes_is_nothing_new(new_run: NewRun, tmp_path: Path) -> None:
    run = new_run()
    source = DirectorySource(run)
    source.poll()
    run.path.rename(tmp_path / "elsewhere")
    assert source.poll() == []
