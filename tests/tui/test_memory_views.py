"""Forecast and autopsy: what is said of memory, and above all when nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.tui.memory_runs import CAPACITY, GIB, STANDING, STEP_S, CardRun

from dpo_telemetry import events
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.exits import HostExit
from dpo_tui.panels.memory_notes import autopsy_lines, notes
from dpo_tui.signs import UNICODE
from dpo_tui.views.forecast import forecast
from dpo_tui.views.memory import MemoryView, take_memory
from dpo_tui.views.memory_rows import MemoryRows, Place

RANDOM = np.random.default_rng(7)
TIMES: NDArray[np.float64] = np.arange(400) * np.float64(7.0)


@pytest.fixture
def new_cards(tmp_path: Path) -> Iterator[Callable[..., CardRun]]:
    made: list[CardRun] = []

    def make(**options: Any) -> CardRun:
        made.append(CardRun(tmp_path / f"runs{len(made)}", **options))
        return made[-1]

    yield make
    for run in made:
        run.close()


def model_of(run: CardRun) -> RunModel:
    run.flush()
    model, source = RunModel(), DirectorySource(run.run)
    while chunks := source.poll():
        model.apply(chunks)
    source.close()
    return model


def view_of(run: CardRun, place: Place | None = None) -> MemoryView:
    model = model_of(run)
    return take_memory(model, MemoryRows().take(model), place, run.now_s + 1)


def text_of(view: MemoryView) -> str:
    return " ".join(line.plain for line in notes(view, 200))


def test_steady_growth_is_foretold_within_its_interval() -> None:
    sizes = 40 * GIB + TIMES * (10 << 20) + RANDOM.normal(0, 100 << 20, len(TIMES))
    found = forecast(TIMES, sizes, 80 * GIB)
    assert found is not None
    expected = (80 * GIB - sizes[-1]) / (10 << 20)
    assert found.soonest_s <= expected <= found.latest_s
    assert found.full_in_s == pytest.approx(expected, rel=0.2)


def test_spikes_do_not_bend_the_forecast() -> None:
    sizes = 40 * GIB + TIMES * (10 << 20)
    spiked = sizes.copy()
    spiked[RANDOM.integers(0, 399, 40)] += 15 * GIB
    calm, found = forecast(TIMES, sizes, 80 * GIB), forecast(TIMES, spiked, 80 * GIB)
    assert calm is not None
    assert found is not None
    assert found.bytes_per_s == pytest.approx(calm.bytes_per_s, rel=0.1)


@pytest.mark.parametrize(
    "sizes",
    [
        np.full(400, 40.0 * GIB),
        40 * GIB + RANDOM.normal(0, GIB, 400),
        60 * GIB - TIMES * (10 << 20),
        40 * GIB + 10 * GIB * np.sin(np.arange(400) / 3),
        np.where(np.arange(400) > 320, 50.0 * GIB, 40.0 * GIB),
        60 * GIB - 20 * GIB * np.exp(-np.maximum(np.arange(400) - 304, 0) / 8),
        40 * GIB + TIMES * 1000.0,
    ],
    ids=["flat", "noise", "shrinks", "swings", "one step up", "settles", "next to nothing"],
)
def test_what_does_not_grow_is_not_foretold(sizes: NDArray[np.float64]) -> None:
    assert forecast(TIMES, sizes, 80 * GIB) is None


def test_too_few_measurements_and_a_full_card_are_not_foretold() -> None:
    sizes = 40 * GIB + TIMES * (10 << 20)
    assert forecast(TIMES[:20], sizes[:20], 80 * GIB) is None
    assert forecast(TIMES, sizes, sizes[-1]) is None
    assert forecast(np.zeros(400), sizes, 80 * GIB) is None
    assert forecast(TIMES, np.full(400, np.nan), 80 * GIB) is None


def test_a_run_that_grows_says_when_its_card_is_full_and_that_this_is_before_its_end(
    new_cards: Callable[..., CardRun],
) -> None:
    run = new_cards(ranks=1, growth_bytes=128 << 20)
    run.train(80)
    view = view_of(run)
    assert view.growth is not None
    assert view.growth.of == "the card"
    left = CAPACITY - (58 * GIB + 80 * (128 << 20))
    assert view.growth.forecast.full_in_s == pytest.approx(left / (128 << 20) * STEP_S, rel=0.05)
    assert "is full in about" in text_of(view)
    assert "before the run ends" in text_of(view)


def test_a_run_that_stands_still_or_has_ended_foretells_nothing(new_cards: Callable[..., CardRun]) -> None:
    still = new_cards(ranks=1)
    still.train(80)
    assert view_of(still).growth is None
    assert text_of(view_of(still)) == "Nobody else uses the card."
    ended = new_cards(ranks=1, growth_bytes=128 << 20)
    ended.train(80)
    ended.run_out(0)
    assert view_of(ended).growth is None


def test_what_others_use_is_the_card_less_our_processes(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=2, others_bytes=3 * GIB)
    run.train(5)
    view = view_of(run, 1)
    assert view.others_bytes == 3 * GIB
    assert "Other processes use 3 GiB of the card." in text_of(view)


def test_without_plan_or_card_nothing_is_made_up(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=1, on_card=False, planned=False)
    run.train(5)
    view = view_of(run)
    assert view.row is not None
    assert (view.planned, view.others_bytes, view.nvml, view.peaks_measured) == (False, None, None, False)
    assert view.row.capacity_bytes is None
    assert {row.name: row.measured_bytes for row in view.components} == STANDING
    assert all(row.planned_bytes is None and row.difference_bytes is None for row in view.components)
    assert text_of(view) == "There is no plan to hold this against."
    assert take_memory(RunModel(), (), None, 0.0) == MemoryView()


def test_phases_show_plan_and_measurement_side_by_side(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=1)
    run.train(3)
    peaks = {row.phase: (row.planned_bytes, row.measured_bytes) for row in view_of(run).phases}
    assert list(peaks) == ["load", "reference", "train", "forward", "backward", "step", "eval", "save"]
    assert peaks["load"] == (19 * GIB, 25 * GIB)
    assert peaks["train"] == (55 * GIB, 53 * GIB)
    assert peaks["backward"] == (55 * GIB, None)
    assert peaks["eval"] == (37 * GIB, None)


def test_the_autopsy_names_rank_phase_component_and_remedy(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=4)
    run.train(12)
    run.run_out(1)
    view = view_of(run)
    died = view.autopsy
    assert died is not None
    assert view.row is not None
    assert view.row.rank == 1, "the rank that died is shown at once"
    assert (died.attempt, died.rank, died.ranks, died.phase, died.step) == (1, 1, 1, "train", 12)
    assert (died.requested_bytes, died.needed_bytes, died.planned_peak_bytes) == (6 * GIB, 74 * GIB, 55 * GIB)
    worst = died.ledger[0]
    assert (worst.name, worst.measured_bytes, worst.over_bytes) == ("activations", 49 * GIB, 19 * GIB)
    assert "train.micro_batch_pairs from 4 to 2" in died.advice[0]
    text = " ".join(line.plain for line in autopsy_lines(died, 120, 20, UNICODE))
    assert "Attempt 1: the card of rank 1 ran out of memory in train, after step 12." in text
    assert "activations 49 GiB of 30 GiB planned, 19 GiB over" in text


def test_advice_survives_where_there_is_little_room(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=1)
    run.train(2)
    run.run_out(0)
    died = view_of(run).autopsy
    assert died is not None
    for height in range(1, 14):
        lines = [line.plain for line in autopsy_lines(died, 40, height, UNICODE)]
        assert len(lines) <= height
        if height >= 6:
            assert any("micro_batch_pairs" in line for line in lines)


def test_a_host_that_ran_out_is_told_from_a_card(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=1)
    run.train(2)
    reason = "rank 0: killed (SIGKILL) by the kernel: the host ran out of memory"
    model = model_of(run)
    assert model.attempt is not None
    model.attempt.host_exits = [HostExit(host="node001", signal="SIGKILL", reason=reason, ended=run.now_s)]
    died = take_memory(model, MemoryRows().take(model), None, run.now_s).autopsy
    assert died is not None
    assert (died.of_host, died.rank) == (True, 0)
    assert "start fewer ranks" in died.advice[0]


def test_a_new_attempt_has_no_autopsy_and_no_rows_of_the_old_one(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=2)
    run.train(3)
    run.run_out(1)
    run.new_attempt()
    view = view_of(run)
    assert view.autopsy is None
    assert view.row is None


def test_messages_cannot_steer_the_terminal(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=1)
    run.train(1)
    run.put(
        "rank-00000",
        events.Alert(
            **run.stamp(), code="oom", severity="critical", message="\x1b[2J[red]CUDA out\u202e of memory"
        ),
    )
    died = view_of(run).autopsy
    assert died is not None
    shown = "\n".join(line.plain for line in autopsy_lines(died, 60, 20, UNICODE))
    assert "[red]CUDA out  of memory" in shown
    assert "\x1b" not in shown


def test_rows_are_the_same_objects_until_something_new_is_measured(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(ranks=8)
    run.train(2)
    model, source, rows = RunModel(), DirectorySource(run.run), MemoryRows()
    while chunks := source.poll():
        model.apply(chunks)
    first = rows.take(model)
    assert rows.take(model) is first
    run.activations[3] = 40 * GIB
    run.put("rank-00003", run.memory(3, "train", 3, STANDING))
    run.flush()
    while rows.take(model) is first:
        model.apply(source.poll())
    second = rows.take(model)
    assert [old is new for old, new in zip(first, second, strict=True)] == [rank != 3 for rank in range(8)]
    source.close()
