"""What happened once in a run, its phases, and the times when nothing was written."""

from __future__ import annotations

import pytest

from dpo_telemetry import events
from dpo_telemetry.reader import history as history_module
from dpo_telemetry.reader.history import Gap, History
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.phases import Phases, Span
from dpo_telemetry.reader.source import Chunk

from .conftest import START_S, Lines

RANK_0 = "attempts/001/events/rank-00000.jsonl"


def phase(at_s: float, name: events.PhaseName, state: str, **more: object) -> events.Phase:
    return events.Phase(v=1, t=at_s, m=at_s, name=name, state=state, **more)  # type: ignore[arg-type]


def beat(at_s: float) -> events.Heartbeat:
    return events.Heartbeat(v=1, t=at_s, m=at_s)


def test_a_phase_lasts_from_its_first_event_to_its_end() -> None:
    phases = Phases()
    for event in (
        phase(1, "train", "begin"),
        phase(5, "eval", "begin", step=10),
        phase(6, "eval", "progress", message="half"),
        phase(8, "eval", "end"),
    ):
        phases.take(event, 1)
    assert phases.spans() == (Span(1, "train", 1), Span(1, "eval", 5, 8, 10, "half"))
    assert phases.current is not None
    assert phases.current.name == "train"
    phases.take(phase(9, "train", "end"), 1)
    assert phases.current.name == "train"
    assert phases.current.state == "end"


def test_what_a_new_start_interrupts_has_no_end() -> None:
    phases = Phases()
    phases.take(phase(1, "train", "begin"), 1)
    phases.interrupt()
    phases.take(phase(5, "load", "begin"), 2)
    phases.take(phase(6, "load", "end"), 2)
    assert phases.spans() == (Span(1, "train", 1), Span(2, "load", 5, 6))


def test_phases_are_bounded_and_what_gives_way_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpo_telemetry.reader.phases.MAX_SPANS", 3)
    phases = Phases()
    phases._ended = type(phases._ended)(maxlen=3)
    for at in range(5):
        phases.take(phase(at, "eval", "begin"), 1)
        phases.take(phase(at + 0.5, "eval", "end"), 1)
    assert [span.begin_s for span in phases.spans()] == [2, 3, 4]
    assert phases.left_out == 2


def test_a_pause_of_a_process_that_goes_on_is_a_gap_however_its_events_are_cut() -> None:
    beats = [beat(float(at)) for at in (*range(60), *range(100, 160))]
    for cut in (1, 7, 60, 200):
        history = History()
        for at in range(0, len(beats), cut):
            history.take(RANK_0, 1, beats[at : at + cut], None)
        assert list(history.gaps) == [Gap(1, "rank-00000", 59.0, 100.0)]


def test_a_process_that_ended_leaves_no_gap() -> None:
    history = History()
    history.take(RANK_0, 1, [beat(0.0), beat(1.0)], None)
    history.take("attempts/002/events/rank-00000.jsonl", 2, [beat(500.0)], None)
    assert not history.gaps


def test_starts_of_the_other_ranks_push_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert history_module.MAX_HAPPENINGS >= 10_000
    history = History()
    for rank in range(3):
        start = events.Start(
            v=1, t=1.0, m=1.0, role="rank", host="n", pid=1, boot_id="", process_started=0.0, rank=rank
        )
        history.take(f"attempts/001/events/rank-{rank:05d}.jsonl", 1, [start], None)
    assert [happening.writer for happening in history.happenings] == ["rank-00000"]


def test_the_model_keeps_what_happened_with_its_attempt(lines: Lines) -> None:
    model = RunModel()
    data = lines.start() + lines.phase("load") + lines.phase("load", "end") + lines.phase("train")
    before = model.history.version
    model.apply([Chunk(RANK_0, 0, data)])
    assert model.history.version != before
    assert [(happening.attempt, type(happening.event)) for happening in model.history.happenings] == [
        (1, events.Start)
    ]
    assert [span.name for span in model.history.phases.spans()] == ["load", "train"]
    assert model.history.phases.spans()[0].begin_s >= START_S
