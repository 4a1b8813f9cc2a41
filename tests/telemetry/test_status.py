"""How a run stands: each state from the files that show it."""

from __future__ import annotations

import msgspec
import pytest

from dpo_telemetry import events
from dpo_telemetry.identity import WriterFields
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk
from dpo_telemetry.reader.status import HUNG_AFTER_S, SILENT_AFTER_S, status_of
from dpo_telemetry.rundir.exits import HostExit

from .conftest import START_S, Lines

RANK_0 = "attempts/001/events/rank-00000.jsonl"
AGENT = "attempts/001/events/agent-node1.jsonl"


def state(model: RunModel, now_s: float = START_S) -> str:
    return status_of(model, now_s).state


def rank_0(*parts: bytes) -> RunModel:
    model = RunModel()
    model.apply([Chunk(RANK_0, 0, b"".join(parts))])
    return model


def exit_of(model: RunModel, code: int | None = 0, signal: str = "", reason: str = "") -> RunModel:
    data = msgspec.json.encode(HostExit(host="node1", code=code, signal=signal, reason=reason, ended=START_S))
    model.apply([Chunk("attempts/001/exit-node1.json", 0, data)])
    return model


def test_a_run_without_an_attempt_waits() -> None:
    assert status_of(RunModel(), START_S).reason == "no attempt yet"


def test_an_attempt_whose_ranks_have_not_begun_waits() -> None:
    model = RunModel()
    model.apply([Chunk("attempts/001/profile.toml", 0, b"")])
    assert state(model) == "waiting"


def test_an_agent_that_fell_silent_before_any_rank_began_is_silent(lines: Lines) -> None:
    model = RunModel()
    start = events.Start(
        **lines.stamp(), role="agent", host="node1", pid=1, boot_id="boot", process_started=START_S
    )
    model.apply([Chunk(AGENT, 0, lines.event(start))])
    assert state(model) == "waiting"
    assert state(model, START_S + SILENT_AFTER_S + 1) == "silent"


def test_an_agent_that_fell_silent_is_silent_however_long_its_keeper_beats(lines: Lines) -> None:
    model, now_s = RunModel(), START_S + SILENT_AFTER_S + 1
    writer = WriterFields(host="node1", pid=1, boot_id="boot", process_started=START_S)
    files: tuple[tuple[events.Role, str], ...] = (
        ("agent", AGENT),
        ("keeper", "attempts/001/events/keeper-1.jsonl"),
    )
    for role, file in files:
        data = lines.event(events.Start(**lines.stamp(), **writer, role=role))
        if role == "keeper":
            data += lines.event(events.Heartbeat(v=events.SCHEMA_VERSION, t=now_s, m=now_s))
        model.apply([Chunk(file, 0, data)])
    assert state(model, now_s) == "silent"


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("load", "loading"), ("reference", "reference"), ("train", "training"),
        ("eval", "evaluating"), ("save", "saving"),
    ],
)  # fmt: skip
def test_a_live_run_is_in_its_phase(lines: Lines, phase: events.PhaseName, expected: str) -> None:
    assert state(rank_0(lines.start(), lines.phase(phase))) == expected


def test_after_an_evaluation_training_goes_on(lines: Lines) -> None:
    model = rank_0(lines.start(), lines.phase("train"), lines.phase("eval"), lines.phase("eval", "end"))
    assert state(model) == "training"


def test_no_heartbeats_is_silent(lines: Lines) -> None:
    status = status_of(rank_0(lines.start(), lines.phase("train")), START_S + 20)
    assert (status.state, status.ended) == ("silent", False)
    assert "no heartbeat for 20 s" in status.reason


def test_heartbeats_without_steps_is_hung(lines: Lines) -> None:
    model = rank_0(lines.start(), lines.phase("train"), lines.step(1, 2.0, loss=0.7))
    lines.now_s += HUNG_AFTER_S + 1
    beat = lines.heartbeat()
    model.apply([Chunk(RANK_0, model.offsets()[RANK_0], beat)])
    assert state(model, lines.now_s) == "hung"


def test_long_steps_are_no_hang(lines: Lines) -> None:
    model = rank_0(lines.start(), lines.phase("train"), lines.step(1, 60.0, loss=0.7))
    lines.now_s += HUNG_AFTER_S + 1
    model.apply([Chunk(RANK_0, model.offsets()[RANK_0], lines.heartbeat())])
    assert state(model, lines.now_s) == "training"


def test_exit_0_is_finished_or_stopped_by_its_reason(lines: Lines) -> None:
    assert state(rank_0(lines.start(), lines.exit(0))) == "finished"
    assert state(rank_0(lines.start(), lines.exit(0, "stopped"))) == "stopped"
    assert state(exit_of(rank_0(lines.start()))) == "finished"


def test_any_other_end_is_failed_and_says_why(lines: Lines) -> None:
    told = status_of(rank_0(lines.start(), lines.exit(1, "oom")), START_S)
    assert (told.state, told.reason, told.ended) == ("failed", "oom", True)
    killed = status_of(exit_of(rank_0(lines.start()), code=None, signal="SIGKILL"), START_S)
    assert (killed.state, killed.reason) == ("failed", "SIGKILL")
    both = status_of(exit_of(rank_0(lines.start(), lines.exit(1, "oom")), code=1), START_S)
    assert (both.state, both.reason) == ("failed", "oom")


def test_what_the_agent_says_of_all_ranks_comes_before_what_rank_0_says_of_itself(lines: Lines) -> None:
    rank = rank_0(lines.start(), lines.exit(70, "RuntimeError: connection reset"))
    status = status_of(exit_of(rank, code=None, signal="SIGKILL", reason="rank 1: killed (SIGKILL)"), START_S)
    assert (status.state, status.reason) == ("failed", "rank 1: killed (SIGKILL)")
    unnamed = status_of(exit_of(rank_0(lines.start(), lines.exit(1, "oom")), code=1), START_S)
    assert unnamed.reason == "oom"


def test_a_stop_before_any_rank_began_is_a_stop(lines: Lines) -> None:
    model = RunModel()
    model.apply([Chunk("attempts/001/profile.toml", 0, b"")])
    assert state(exit_of(model, code=0, reason="stopped before the ranks began")) == "stopped"


def test_an_ended_run_stays_ended_however_late_one_looks(lines: Lines) -> None:
    assert state(rank_0(lines.start(), lines.exit(0)), START_S + 1e6) == "finished"


def test_a_resume_lives_although_the_attempt_before_failed(lines: Lines) -> None:
    model = rank_0(lines.start(), lines.exit(1))
    file = "attempts/002/events/rank-00000.jsonl"
    model.apply([Chunk(file, 0, lines.start(resumed_from_step=4) + lines.phase("load"))])
    assert state(model) == "loading"
