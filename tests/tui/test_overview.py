"""The overview answers four questions, shows what moves now, and uses the room there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from tests.tui.conftest import START_S, STEP_S, RunBuilder, drawn
from textual.content import Content
from textual.geometry import Size

from dpo_telemetry import events
from dpo_telemetry.events import Phase, PhaseName
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.identity import boot_id
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.reader.status import Status
from dpo_tui.app import MonitorApp
from dpo_tui.attention import Attention
from dpo_tui.charts.chart import Line
from dpo_tui.charts.widget import LineChart
from dpo_tui.panels.answers import answers, end, fits, learning, wrong
from dpo_tui.panels.progress import progress
from dpo_tui.screens.chart_grid import shape
from dpo_tui.signs import ASCII, UNICODE
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.cost import Cost
from dpo_tui.views.memory_rows import MemoryRow

GIB = 2**30
NOON_S = 1_790_078_400.0
"""12:00 on Tuesday, 2026-09-22, UTC."""
BASE = Snapshot(
    name="demo", now_s=NOON_S, link="live", status=Status("training"), attempt=1, step=30, max_steps=120,
    step_time_s=2.0, eta_s=180.0, tokens_per_s=1234.0, pairs_per_s=2.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text(lines: list[Content]) -> str:
    return "\n".join(line.plain for line in lines)


def margins(values: np.ndarray) -> Snapshot:
    line = Line("train", np.arange(len(values)), values)
    return replace(BASE, charts={"margins": (line,)})


def alert(code: str, severity: events.Severity) -> HealthAlert:
    return HealthAlert(code=code, severity=severity, step=2, message="m", advice="a")


def test_learning_is_margins_that_are_larger_now_than_at_first() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 300)
    assert learning(margins(np.linspace(0, 1, 300) + noise)).word == "learning"
    assert learning(margins(noise)).word == "not yet learning"
    assert learning(margins(np.linspace(0, 1, 5))).word == "too early to tell"
    assert learning(margins(np.full(300, np.nan))).kind == "unknown"
    assert learning(BASE).kind == "unknown"


def test_an_alert_that_doubts_learning_outweighs_margins() -> None:
    rising = margins(np.linspace(0, 1, 300))
    doubted = replace(rising, alerts=(alert("adapter_frozen", "critical"),))
    assert (learning(doubted).kind, learning(doubted).word) == ("critical", "not learning")
    assert learning(replace(rising, alerts=(alert("vram_leak", "critical"),))).word == "learning"


def test_wrong_counts_alerts_and_says_a_state_that_is_wrong_first() -> None:
    assert wrong(BASE).word == "nothing wrong"
    found = (alert("nonfinite", "critical"), alert("margin_small", "warning"))
    assert wrong(replace(BASE, alerts=found)).word == "1 critical"
    hung = replace(BASE, alerts=found, status=Status("hung", "no step for 300 s"))
    assert (wrong(hung).word, wrong(hung).detail) == ("hung", "no step for 300 s")


def test_it_fits_by_the_fullest_card() -> None:
    rows = tuple(
        MemoryRow(
            rank,
            {"policy_weights": GIB},
            {"policy_weights": GIB},
            gpu_used_bytes=used,
            capacity_bytes=80 * GIB,
        )
        for rank, used in enumerate((60 * GIB, 70 * GIB))
    )
    assert fits(replace(BASE, memory=rows)).detail == "10 GiB free on rank 1"
    assert fits(replace(BASE, memory=rows, alerts=(alert("oom", "critical"),))).word == "out of memory"
    muted = Attention(muted=frozenset({"oom"}))
    assert (
        fits(replace(BASE, memory=rows, alerts=(alert("oom", "critical"),), attention=muted)).word == "fits"
    )
    assert fits(BASE).kind == "unknown"


@pytest.mark.parametrize(
    ("eta_s", "detail"), [(180, "ends 12:03"), (86_400, "ends Wed 12:00"), (30 * 86_400, "ends 2026-10-22")]
)
def test_the_end_has_a_time_of_day_and_the_day_when_it_is_another(eta_s: float, detail: str) -> None:
    assert end(replace(BASE, eta_s=eta_s)).detail == detail


def test_an_end_out_of_sight_is_no_error() -> None:
    assert end(replace(BASE, eta_s=1e300)).kind == "good"
    assert end(replace(BASE, status=Status("failed"))).kind == "critical"


@pytest.mark.parametrize("width", [20, 40, 78, 118, 238])
@pytest.mark.parametrize("height", [1, 2])
@pytest.mark.parametrize("signs", [UNICODE, ASCII])
def test_the_answers_fit_any_width(width: int, height: int, signs: object) -> None:
    lines = answers(BASE, width, height, signs)  # type: ignore[arg-type]
    assert len(lines) == height
    assert all(line.cell_length <= width for line in lines)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("load", "loading 3/12 GB  25%"),
        ("reference", "reference pass 3/12"),
        ("eval", "evaluating"),
        ("save", "saving"),
    ],
)
def test_each_phase_shows_its_own_progress_under_that_of_the_steps(name: PhaseName, said: str) -> None:
    phase = Phase(v=1, t=0, m=0, name=name, state="progress", done=3, total=12, unit="GB", message="shard 3")
    first, second = progress(replace(BASE, phase=phase), 100, 2, UNICODE)
    assert "step 30/120  25%" in first.plain
    assert said in second.plain
    assert "shard 3" in second.plain
    over = replace(BASE, phase=phase, status=Status("failed"))
    assert "tok/s" in progress(over, 100, 2, UNICODE)[1].plain


def test_training_shows_its_pace_cost_and_end() -> None:
    shown = text(progress(replace(BASE, cost=Cost("EUR", 1.5, 4.5)), 100, 2, UNICODE))
    for part in (
        "3 m 00 s left, ends 12:03",
        "2.00 s/step",
        "1234 tok/s",
        "2.50 pairs/s",
        "cost 1.50 of 6.00 EUR",
    ):
        assert part in shown


def test_a_run_that_is_still_read_says_how_much() -> None:
    assert "reading the run  40%" in text(progress(replace(BASE, reading=0.4), 80, 1, UNICODE))
    assert "reading" not in text(progress(replace(BASE, reading=1.0), 80, 2, UNICODE))


@pytest.mark.parametrize("device", ["NVIDIA H100 80GB HBM3", "cpu"])
async def test_cost_is_gpu_hours_at_the_price_of_the_profile(
    new_run: Callable[..., RunBuilder], device: str
) -> None:
    builder = new_run()
    (builder.attempt.path / "profile.toml").write_text('[cost]\nper_gpu_hour = 3.0\ncurrency = "EUR"\n')
    builder.put(
        events.Start(
            **builder.stamp(), role="rank", host="node1", pid=4321, boot_id=boot_id(), process_started=START_S,
            rank=0, world_size=8, device=device, max_steps=300,
        )
    )  # fmt: skip
    builder.train(100)
    builder.flush()
    app = MonitorApp(DirectorySource(builder.run), "run", clock=lambda: builder.now_s)
    async with app.run_test(size=(120, 40)) as pilot:
        await drawn(app, pilot)
        assert app.snapshot is not None
        cost = app.snapshot.cost
    if device == "cpu":
        assert cost is None
    else:
        assert cost is not None
        assert cost.spent == pytest.approx(8 * 100 * STEP_S / 3600 * 3.0)
        assert cost.total == pytest.approx(8 * 300 * STEP_S / 3600 * 3.0)


@pytest.mark.parametrize(
    ("size", "count", "grid"),
    [
        ((78, 12), 7, (2, 2)), ((38, 7), 7, (1, 1)), ((20, 3), 4, (1, 1)), ((158, 55), 6, (2, 3)),
        ((158, 55), 9, (3, 3)), ((70, 8), 4, (2, 2)), ((300, 90), 4, (2, 2)),
    ],
)  # fmt: skip
def test_charts_are_as_many_as_the_room_allows(
    size: tuple[int, int], count: int, grid: tuple[int, int]
) -> None:
    columns, rows = shape(Size(*size), count)
    assert (columns, rows) == grid


async def test_a_large_terminal_shows_more_charts_than_a_small_one(live_run: RunBuilder) -> None:
    app = MonitorApp(DirectorySource(live_run.run), "run", clock=lambda: live_run.now_s)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)

        def shown() -> set[str]:
            return {chart.title for chart in app.screen.query(LineChart) if chart.display}

        assert shown() == {"loss", "rewards", "margins", "accuracies"}
        await pilot.resize_terminal(240, 70)
        await pilot.pause()
        await pilot.pause()
        assert {"grad norm", "log-probs"} <= shown()
        assert "entropy" not in shown(), "a run without it"
        assert app.screen.query_one("#chart-grad-norm", LineChart).lines
        await pilot.resize_terminal(40, 12)
        await pilot.pause()
        await pilot.pause()
        assert shown() == {"loss"}
