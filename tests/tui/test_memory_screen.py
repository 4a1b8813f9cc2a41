"""The memory screen over real run directories: state first, pictures second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.tui.conftest import RunBuilder, drawn, screen_text, wait_until
from tests.tui.memory_runs import GIB, CardRun
from textual.pilot import Pilot

from dpo_telemetry.reader.source import DirectorySource
from dpo_tui.app import MonitorApp
from dpo_tui.screens.memory import MemoryScreen, PlacesMap
from dpo_tui.screens.memory_timeline import MemoryTimeline
from dpo_tui.signs import ASCII, UNICODE, Signs

Snap = Callable[..., bool]
SIZES = [(40, 12), (80, 24), (120, 40), (240, 70)]


@pytest.fixture
def new_cards(tmp_path: Path) -> Iterator[Callable[..., CardRun]]:
    made: list[CardRun] = []

    def make(steps: int = 60, **options: Any) -> CardRun:
        run = CardRun(tmp_path / f"runs{len(made)}", **options)
        made.append(run)
        if steps:
            run.train(steps)
        return run

    yield make
    for run in made:
        run.close()


def monitor(run: CardRun | RunBuilder, signs: Signs = UNICODE) -> MonitorApp:
    frozen = run.now_s + 1
    return MonitorApp(DirectorySource(run.run), run.run.name, clock=lambda: frozen, signs=signs)


async def open_memory(app: MonitorApp, pilot: Pilot[None]) -> MemoryScreen:
    await drawn(app, pilot)
    await pilot.press("3")
    await wait_until(
        lambda: (
            isinstance(app.screen, MemoryScreen)
            and app.drawn is not None
            and app.drawn.memory_view is not None
        ),
        pilot,
    )
    assert isinstance(app.screen, MemoryScreen)
    return app.screen


def shown_rank(app: MonitorApp) -> int | None:
    view = app.drawn.memory_view if app.drawn is not None else None
    return view.row.rank if view is not None and view.row is not None else None


def shows(app: MonitorApp, rank: int) -> bool:
    return shown_rank(app) == rank


async def test_arrows_choose_the_rank_whose_memory_is_shown(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(steps=3, ranks=16))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_memory(app, pilot)
        assert shown_rank(app) == 0
        for key, rank in (
            ("right", 1),
            ("down", 9),
            ("left", 8),
            ("up", 0),
            ("end", 15),
            ("right", 15),
            ("home", 0),
        ):
            await pilot.press(key)
            await wait_until(partial(shows, app, rank), pilot)
        timeline = screen.query_one(MemoryTimeline)
        assert timeline.view is not None
        assert timeline.view.samples is not None
        assert "rank 0 (node001:0) of 16  NVIDIA H100 80GB HBM3  58 GiB of 80 GiB 72%" in screen_text(app)


async def test_w_goes_to_the_fullest_card(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(steps=3, ranks=16, activations={11: 40 * GIB}))
    async with app.run_test(size=(80, 24)) as pilot:
        await open_memory(app, pilot)
        await pilot.press("w")
        await wait_until(lambda: shown_rank(app) == 11, pilot)


async def test_a_click_on_the_map_chooses_a_rank(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(steps=3, ranks=16))
    async with app.run_test(size=(120, 40)) as pilot:
        await open_memory(app, pilot)
        # Five columns of label, eight cards, a gap, then the second host.
        await pilot.click(PlacesMap, offset=(5 + 8 + 1 + 2, 0))
        await wait_until(lambda: shown_rank(app) == 10, pilot)


async def test_the_tables_show_plan_measurement_and_difference(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(ranks=1, activations={0: 37 * GIB}))
    async with app.run_test(size=(120, 40)) as pilot:
        await open_memory(app, pilot)
        lines = [" ".join(line.split()) for line in screen_text(app).splitlines()]
    assert any(line.startswith("█ activations 30 GiB 37 GiB +7 GiB ▲") for line in lines)
    assert any(line.startswith("█ policy weights 18 GiB 18 GiB 0 B") for line in lines)
    assert any("train 55 GiB 62 GiB +7 GiB ▲" in line for line in lines)
    assert any("NVML, process 57-66 GiB 67 GiB +1 GiB" in line for line in lines)


async def test_o_orders_the_components_by_their_difference(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(steps=3, ranks=1, activations={0: 67 * GIB}))
    async with app.run_test(size=(120, 40)) as pilot:
        await open_memory(app, pilot)
        assert screen_text(app).index("policy weights") < screen_text(app).index("activations")
        await pilot.press("o")
        await wait_until(
            lambda: screen_text(app).index("activations") < screen_text(app).index("policy weights"), pilot
        )


async def test_z_leaves_the_card_out_of_the_scale(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(ranks=1))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_memory(app, pilot)
        assert "card 80 GiB" in screen_text(app)
        assert "plan 55 GiB" in screen_text(app)
        await pilot.press("z")
        await wait_until(lambda: "card 80 GiB" not in screen_text(app), pilot)
        assert not screen.query_one(MemoryTimeline).from_zero


async def test_an_out_of_memory_run_opens_on_its_autopsy(new_cards: Callable[..., CardRun]) -> None:
    run = new_cards(steps=12, ranks=4)
    run.run_out(1)
    app = monitor(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_memory(app, pilot)
        assert shown_rank(app) == 1
        text = screen_text(app)
    assert "the card of rank 1 ran out of memory in train, after step 12" in text
    assert "Lower train.micro_batch_pairs from 4 to 2" in text


async def test_new_measurements_appear_and_nothing_is_drawn_again_without_them(
    new_cards: Callable[..., CardRun],
) -> None:
    run = new_cards(steps=3, ranks=2)
    app = monitor(run)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_memory(app, pilot)
        timeline = screen.query_one(MemoryTimeline)
        await wait_until(lambda: timeline._strips is not None, pilot)
        before, snapshot = timeline._strips, app.drawn
        await wait_until(lambda: app.drawn is not snapshot, pilot)
        assert timeline._strips is before
        run.activations[0] = 41 * GIB
        run.measure("train", 4)
        run.flush()
        await wait_until(lambda: "41 GiB" in screen_text(app), pilot)
        assert timeline._strips is not before


async def test_a_run_without_any_measurement_says_so(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(steps=0, ranks=2))
    async with app.run_test(size=(80, 24)) as pilot:
        await open_memory(app, pilot)
        for key in ("left", "right", "w", "o", "z", "home", "end"):
            await pilot.press(key)
        text = screen_text(app)
    assert "memory was not measured yet" in text
    assert "no data yet" in text


@pytest.mark.parametrize(
    ("ranks", "size"), [*((1, size) for size in SIZES), (8, (40, 12)), (64, (120, 40)), (1024, (80, 24))]
)
async def test_every_size_and_number_of_ranks_is_shown(
    new_cards: Callable[..., CardRun], ranks: int, size: tuple[int, int]
) -> None:
    app = monitor(new_cards(steps=2, ranks=ranks))
    async with app.run_test(size=size) as pilot:
        await open_memory(app, pilot)
        assert "rank 0" in screen_text(app)
        assert len(app.drawn.memory if app.drawn else ()) == ranks
    assert app.failure is None


async def test_an_ascii_terminal_gets_ascii(new_cards: Callable[..., CardRun]) -> None:
    app = monitor(new_cards(ranks=2, others_bytes=3 * GIB), ASCII)
    async with app.run_test(size=(120, 40)) as pilot:
        await open_memory(app, pilot)
        text = screen_text(app)
    assert "W policy weights" in text
    assert all(line.isascii() for line in text.splitlines()[2:-1])


@pytest.mark.parametrize("size", SIZES[1:], ids=lambda size: f"{size[0]}x{size[1]}")
def test_picture_of_eight_cards(
    new_cards: Callable[..., CardRun], snap_compare: Snap, size: tuple[int, int]
) -> None:
    app = monitor(new_cards(ranks=8, others_bytes=3 * GIB, activations={3: 37 * GIB}))

    async def open_it(pilot: Pilot[None]) -> None:
        await open_memory(app, pilot)
        await pilot.press("w")
        await wait_until(lambda: shown_rank(app) == 3, pilot)

    assert snap_compare(app, terminal_size=size, run_before=open_it)


@pytest.mark.parametrize("size", SIZES[1:], ids=lambda size: f"{size[0]}x{size[1]}")
def test_picture_of_an_autopsy(
    new_cards: Callable[..., CardRun], snap_compare: Snap, size: tuple[int, int]
) -> None:
    run = new_cards(steps=12, ranks=4)
    run.run_out(1)
    app = monitor(run)

    async def open_it(pilot: Pilot[None]) -> None:
        await open_memory(app, pilot)

    assert snap_compare(app, terminal_size=size, run_before=open_it)
