"""Memory over time stays bounded, and a peak of one step is never lost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpo_telemetry import events
from dpo_telemetry.reader import memory_history
from dpo_telemetry.reader.card_processes import CardProcesses
from dpo_telemetry.reader.memory_history import MAX_POINTS, TOTAL_POINTS, MemoryHistory
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk

GIB = 1 << 30


def memory(step: int, peak: int | None = None, phase: events.PhaseName = "train") -> events.Memory:
    return events.Memory(
        v=1, t=1000.0 + step, m=float(step), phase=phase, step=step, components={"policy_weights": 10},
        peak_allocated_bytes=peak,
    )  # fmt: skip


def test_samples_come_back_as_they_were_measured_while_there_is_room() -> None:
    history = MemoryHistory()
    for step in range(1, 11):
        history.measure(1, 0, memory(step, 100 + step))
    samples = history.rank(0)
    assert samples is not None
    assert samples.wall_s.tolist() == [1000.0 + step for step in range(1, 11)]
    assert samples.figures[memory_history.PEAK_ALLOCATED].tolist() == [100.0 + step for step in range(1, 11)]
    assert np.isnan(samples.figures[memory_history.RESERVED]).all(), (
        "what was not measured is absent, never 0"
    )
    assert samples.revision == 10


@pytest.mark.parametrize("spike_at", [1, 2, 5_000, 33_333, 49_999, 50_000])
def test_one_spike_among_many_steps_survives_every_halving(spike_at: int) -> None:
    history = MemoryHistory()
    for step in range(1, 50_001):
        history.measure(1, 0, memory(step, 900 if step == spike_at else 100))
    samples = history.rank(0)
    assert samples is not None
    assert MAX_POINTS // 2 <= len(samples.wall_s) <= MAX_POINTS
    peaks = samples.figures[memory_history.PEAK_ALLOCATED]
    assert np.flatnonzero(peaks == 900).size == 1
    at = int(np.flatnonzero(peaks == 900)[0])
    assert abs(samples.wall_s[at] - (1000 + spike_at)) <= 50_000 / len(peaks) * 2
    assert samples.wall_s[-1] == 51_000.0, "the newest sample is there at once"
    assert (np.diff(samples.wall_s) > 0).all()


def test_points_lie_evenly_however_often_they_were_halved() -> None:
    history = MemoryHistory()
    for step in range(1, 30_001):
        history.measure(1, 0, memory(step, 100))
    samples = history.rank(0)
    assert samples is not None
    apart = np.diff(samples.wall_s)[:-1]
    assert apart.min() == apart.max()


def test_a_figure_that_is_known_wins_over_one_that_is_not() -> None:
    history = MemoryHistory()
    for step in range(1, 2 * MAX_POINTS + 1):
        history.measure(1, 0, memory(step, 100 if step % 2 else None))
    samples = history.rank(0)
    assert samples is not None
    assert np.isfinite(samples.figures[memory_history.PEAK_ALLOCATED][:-1]).all()


def test_all_ranks_and_cards_of_a_large_run_are_bounded_together() -> None:
    history = MemoryHistory()
    for step in range(1, 1_200):
        for rank in range(1024):
            if rank < 8 or step < 3:
                history.measure(1, rank, memory(step, 100))
                history.see_card(1, (f"n{rank // 8}", rank % 8), float(step), 7)
    lengths = [len(samples.wall_s) for rank in history.ranks if (samples := history.rank(rank)) is not None]
    assert len(history.ranks) == len(history.cards) == 1024
    assert max(lengths) <= TOTAL_POINTS // 2048


def test_a_new_attempt_starts_anew_and_an_older_one_adds_nothing() -> None:
    history = MemoryHistory()
    history.measure(1, 0, memory(1, 100))
    history.see_card(1, ("n1", 0), 1.0, 5)
    history.measure(2, 1, memory(1, 200, "load"))
    history.measure(1, 0, memory(2, 100))
    assert (set(history.ranks), set(history.cards)) == ({1}, set())
    assert history.standing_bytes(1) == {"load": 10}
    assert history.standing_bytes(0) == {}
    assert history.rank(0) is None
    assert history.card(("n1", 0)) is None


def test_what_nvml_does_not_tell_is_not_a_number() -> None:
    history = MemoryHistory()
    history.see_card(1, ("n1", 0), 1.0, None)
    samples = history.card(("n1", 0))
    assert samples is not None
    assert math.isnan(samples.figures[memory_history.USED][0])


def start(pid: int, rank: int) -> events.Start:
    return events.Start(
        v=1, t=1.0, m=1.0, role="rank", host="n1", pid=pid, boot_id="b", process_started=1.0, rank=rank
    )


def gpu(used: int) -> events.Gpu:
    return events.Gpu(
        v=1, t=2.0, m=2.0, host="n1", index=3, name="H100", memory_total_bytes=80 * GIB, memory_used_bytes=used + 5,
        process_bytes={"77": used, "5": 5},
    )  # fmt: skip


@pytest.mark.parametrize("agent_first", [True, False])
def test_a_rank_is_found_on_its_card_whichever_file_is_read_first(agent_first: bool) -> None:
    measured = events.Memory(
        v=1, t=2.0, m=2.0, phase="train", step=1, components={"policy_weights": 10}, allocated_bytes=10,
        peak_allocated_bytes=20, reserved_bytes=30,
    )  # fmt: skip
    plan = b'{"per_gpu": [{"phases": {}, "context_communication_bytes": {"low": 1, "high": 9}}]}'
    rank = Chunk(
        "attempts/001/events/rank-00000.jsonl", 0, events.encode(start(77, 0)) + events.encode(measured)
    )
    agent = Chunk(
        "attempts/001/events/agent-n1.jsonl", 0, b"".join(events.encode(gpu(used)) for used in (90, 40))
    )
    model = RunModel()
    model.apply([Chunk("attempts/001/plan.json", 0, plan)])
    model.apply([agent, rank] if agent_first else [rank, agent])
    assert model.gpu_of_rank == {0: ("n1", 3)}
    assert model.process_bytes == {0: 40}
    assert model.attempt is not None
    held = model.attempt.budget.rank(0)
    assert held is not None
    assert held.components["context_communication"].measured_bytes == 10


def test_processes_of_others_are_no_ranks() -> None:
    known = CardProcesses()
    assert known.start(1, "n1", 77, 0) is None
    assert [(seen.rank, seen.newest_bytes) for seen in known.see(1, gpu(90))] == [(0, 90)]
    assert known.see(2, gpu(90)) == [], "a pid of another attempt is another process"
