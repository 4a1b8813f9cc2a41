"""The memory panel of the overview: bars, small bars or a map, and nothing that was not measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from textual.content import Content

from dpo_telemetry import components
from dpo_telemetry.events import Memory
from dpo_telemetry.reader.status import Status
from dpo_tui.panels.memory import memory
from dpo_tui.panels.memory_bar import GROUPS, LETTERS, bar, by_group, ruler
from dpo_tui.panels.memory_map import heat_map
from dpo_tui.signs import ASCII, UNICODE, Signs, signs_for
from dpo_tui.snapshot import Snapshot
from dpo_tui.theme import THEMES
from dpo_tui.views.memory_rows import MemoryRow, stacked

GIB = 1 << 30
BASE = Snapshot(name="demo", now_s=1000.0, link="live", status=Status("training"), attempt=1)
SIZES = [(36, 6), (38, 8), (42, 12), (78, 20), (20, 4), (118, 35)]


def row(rank: int, used: int = 60, **changed: object) -> MemoryRow:
    found = MemoryRow(
        rank,
        {"policy_weights": 20 * GIB, "activations": 30 * GIB, "cache_fragmentation": 2 * GIB},
        {"policy_weights": 20 * GIB, "activations": 32 * GIB, "cache_fragmentation": 4 * GIB},
        gpu_used_bytes=used * GIB, capacity_bytes=80 * GIB, host=f"node{rank // 8}", gpu_index=rank % 8,
        planned_peaks={"load": 20 * GIB, "backward": 52 * GIB}, planned_nvml_bytes=(55 * GIB, 64 * GIB),
    )  # fmt: skip
    return replace(found, **changed)  # type: ignore[arg-type]


def drawn(rows: tuple[MemoryRow, ...], width: int, height: int, signs: Signs = UNICODE) -> list[str]:
    return [line.plain for line in memory(replace(BASE, memory=rows), width, height, signs)]


def styles_at(content: Content, at: int) -> set[str]:
    return {str(span.style) for span in content.spans if span.start <= at < span.end}


@pytest.mark.parametrize("ranks", [1, 2, 8, 17, 64, 65, 128, 1024])
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("signs", [UNICODE, ASCII])
def test_any_number_of_cards_fits_any_room(ranks: int, width: int, height: int, signs: Signs) -> None:
    lines = memory(replace(BASE, memory=tuple(map(row, range(ranks)))), width, height, signs)
    assert len(lines) <= height
    assert all(line.cell_length <= width for line in lines)
    assert len(lines) > 1


@pytest.mark.parametrize("ranks", [1, 8, 64, 1024])
def test_where_the_height_is_free_the_panel_asks_for_no_more_than_a_screen(ranks: int) -> None:
    assert len(drawn(tuple(map(row, range(ranks))), 78, 10_000)) <= 40


def test_the_fullest_of_1024_cards_is_named_and_marked() -> None:
    rows = tuple(row(rank, 79 if rank == 700 else 60) for rank in range(1024))
    text = drawn(rows, 118, 40)
    assert "1024 GPUs, share of the card" in text[0]
    assert any(line.startswith("fullest: rank 700 (node87:4) 99%") for line in text)
    found = heat_map(rows, 118, 30, UNICODE)
    marked = [place for place in found.places if found.lines[place[1]].plain[place[0]] == UNICODE.critical]
    assert [found.places[place] for place in marked] == [700]


def test_hosts_lie_apart_on_the_map_where_there_is_room() -> None:
    found = heat_map(tuple(map(row, range(32))), 45, 4, UNICODE)
    assert found.lines[0].plain == "   0 " + " ".join([UNICODE.levels[6] * 8] * 4)
    assert len(found.lines) == 1


def test_a_cell_of_several_cards_shows_the_fullest_of_them() -> None:
    rows = tuple(row(rank, 79 if rank == 1001 else 10) for rank in range(1024))
    found = heat_map(rows, 37, 4, UNICODE)
    assert found.together == 8
    assert sum(line.plain.count(UNICODE.critical) for line in found.lines) == 1
    assert any(place == 1001 for place in found.places.values())


def test_every_cell_of_the_map_leads_to_its_card() -> None:
    found = heat_map(tuple(map(row, range(64))), 40, 8, UNICODE)
    assert sorted(map(str, found.places.values())) == sorted(map(str, range(64)))


def test_the_marks_stand_where_plan_and_interval_are() -> None:
    plain = bar(row(0), 80, UNICODE).plain
    assert (plain.index("├"), plain.index("┃"), plain.index("┤")) == (55, 52, 64)
    under = ruler(row(0), 80, UNICODE).plain
    assert (under[20], under[52], under[55], under[64]) == ("╵", "╵", "├", "┤")
    assert "NVML" in under
    assert "plan: backward" in under


def test_a_plan_beyond_the_card_shows_where_the_card_ends() -> None:
    plain = bar(row(0, planned_nvml_bytes=(70 * GIB, 95 * GIB)), 60, UNICODE).plain
    assert plain.index("▐") < plain.index("┤")


def test_what_fills_the_card_beyond_the_rank_is_others() -> None:
    text = "\n".join(drawn((row(0, 70),), 60, 12))
    assert "others 18 GiB" in text
    assert UNICODE.full in bar(row(0, 70), 80, UNICODE).plain


def test_parts_add_up_to_what_the_process_holds() -> None:
    measured = Memory(
        v=1, t=0, m=0, phase="train", components={"policy_weights": 20, "gradients": 5}, allocated_bytes=25,
        peak_allocated_bytes=60, reserved_bytes=64,
    )  # fmt: skip
    parts = stacked(measured, 70)
    assert parts == {
        "policy_weights": 20, "gradients": 5, "activations": 35, "cache_fragmentation": 4, "context_communication": 6,
    }  # fmt: skip
    assert sum(parts.values()) == 70
    on_cpu = Memory(v=1, t=0, m=0, phase="train", components={"policy_weights": 20})
    assert stacked(on_cpu, None) == {"policy_weights": 20}, "what was not measured is absent"


def test_a_card_that_is_nearly_full_and_a_rank_above_its_plan_say_so_without_colours() -> None:
    full, over = row(0, 79), row(1, 60, measured={"policy_weights": 30 * GIB})
    text = "\n".join(drawn((full, over), 78, 8, ASCII))
    assert f"52 GiB {ASCII.critical}" in text
    assert f"30 GiB {ASCII.warning}" in text


def test_a_card_on_which_no_rank_was_seen_is_a_row_of_its_own() -> None:
    card = MemoryRow(None, {}, {}, gpu_used_bytes=70 * GIB, capacity_bytes=80 * GIB, host="n1", gpu_index=3)
    text = "\n".join(drawn((card,), 78, 6))
    assert "n1 gpu 3  70 GiB of 80 GiB  none of our ranks seen on it" in text


def test_nothing_measured_no_plan_and_no_card_are_said() -> None:
    assert drawn((), 40, 5)[1] == "waiting for the first measurement"
    ended = memory(replace(BASE, status=Status("failed")), 40, 5, UNICODE)
    assert ended[1].plain == "nothing was measured"
    bare = MemoryRow(0, {"policy_weights": GIB}, {}, rss_bytes=2 * GIB)
    text = drawn((bare,), 60, 6)
    assert text[0].endswith("no plan")
    assert text[1] == "rank 0  1 GiB  RSS 2 GiB"
    many = drawn(tuple(replace(bare, rank=rank) for rank in range(100)), 60, 8)
    assert "?" in many[1]
    assert "100 ranks" in many[0]


def test_without_colours_every_group_has_a_letter_of_its_own() -> None:
    assert len(set(LETTERS.values())) == len(LETTERS)
    assert set(GROUPS) <= set(LETTERS)
    signs = signs_for({"NO_COLOR": "1"}, "UTF-8")
    assert signs.letters
    assert signs.block == UNICODE.block
    plain = bar(row(0), 80, signs).plain
    assert plain.startswith("W" * 20 + "T" * 30)
    assert "W weights" in "\n".join(drawn((row(0),), 60, 12, signs))
    assert not signs_for({"NO_COLOR": ""}, "UTF-8").letters


def test_groups_hold_every_component_once() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(components.ALL)
    assert by_group({"policy_weights": 1, "reference_weights": 2, "new_thing": 4}) == {
        "weights": 3,
        "other": 4,
    }


MACHADO = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}  # fmt: skip
"""Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009."""
NEIGHBOURS = ("weights", "adapters", "gradients", "optimizer", "activations", "cache", "context")


def seen(colour: str, vision: str | None) -> tuple[float, float, float]:
    """CIE L*a*b* of a colour as somebody sees it."""
    linear = []
    for at in (1, 3, 5):
        value = int(colour[at : at + 2], 16) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    if vision is not None:
        linear = [
            max(0.0, min(1.0, sum(a * b for a, b in zip(line, linear, strict=True))))
            for line in MACHADO[vision]
        ]
    red, green, blue = linear
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116 for value in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("vision", [None, *MACHADO])
@pytest.mark.parametrize("theme", [theme.name for theme in THEMES[2:]])
def test_groups_that_touch_are_told_apart_with_any_colour_vision(theme: str, vision: str | None) -> None:
    variables = next(found for found in THEMES if found.name == theme).variables
    colours = {name: seen(variables[f"part-{name}"], vision) for name in NEIGHBOURS}
    for one, other in combinations(NEIGHBOURS, 2):
        if abs(NEIGHBOURS.index(one) - NEIGHBOURS.index(other)) == 1:
            apart = sum((a - b) ** 2 for a, b in zip(colours[one], colours[other], strict=True)) ** 0.5
            assert apart >= 10, f"{one} and {other}"
