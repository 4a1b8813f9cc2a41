"""Panels say what a snapshot holds, in the room they get."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.content import Content

from dpo_telemetry.events import Phase
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.reader.status import Status
from dpo_tui.panels.alerts import alerts
from dpo_tui.panels.header import header
from dpo_tui.panels.log import log
from dpo_tui.panels.memory import memory
from dpo_tui.panels.memory_bar import bar, by_group
from dpo_tui.panels.progress import progress
from dpo_tui.signs import ASCII, UNICODE, signs_for
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.memory_rows import MemoryRow

MIB = 2**20
BASE = Snapshot(
    name="demo", now_s=1000.0, link="live", status=Status("training"), attempt=1, step=30, max_steps=120,
    step_time_s=2.0, eta_s=180.0, tokens_per_s=1234.0, last_data_s=988.0,
)  # fmt: skip
NONFINITE = HealthAlert(
    code="nonfinite", severity="critical", metric="loss", step=2, message="loss is not finite", advice="Stop."
)
ROUNDED = HealthAlert(code="bf16_rounding", severity="warning", step=1, message="margins cannot be seen")


def plain(lines: list[Content]) -> list[str]:
    return [line.plain for line in lines]


def row(rank: int = 0, **changed: object) -> MemoryRow:
    measured = {"policy_weights": 100 * MIB, "adapters": 10 * MIB}
    planned = {"policy_weights": 101 * MIB, "adapters": 10 * MIB, "gradients": 500 * MIB}
    return replace(MemoryRow(rank, measured, planned), **changed)  # type: ignore[arg-type]


def test_a_lost_keeper_is_named_with_the_age_of_the_data() -> None:
    lost = replace(BASE, link="lost", name="a-run-with-a-name-that-is-far-too-long-for-the-line")
    text = plain(header(lost, 80, 1, UNICODE))[0]
    assert "keeper lost, last data 12 s ago" in text
    assert len(text) <= 80


@pytest.mark.parametrize(
    ("link", "state", "expected"),
    [
        ("live", "training", "keeper live"),
        ("stale", "training", "keeper silent, last data 12 s ago"),
        ("file", "training", "no keeper, last data 12 s ago"),
        ("file", "finished", "replay"),
        ("lost", "finished", "keeper ended"),
    ],
)
def test_the_link_is_told(link: str, state: str, expected: str) -> None:
    snapshot = replace(BASE, link=link, status=Status(state))  # type: ignore[arg-type]
    assert plain(header(snapshot, 100, 1, UNICODE))[0].endswith(expected)


def test_progress_shows_step_pace_and_time_left() -> None:
    text = plain(progress(BASE, 100, 1, UNICODE))[0]
    for part in ("step 30/120", "25%", "2.00 s/step", "3 m 00 s left", "1234 tok/s"):
        assert part in text
    narrow = plain(progress(BASE, 36, 1, UNICODE))[0]
    assert "step 30/120" in narrow
    assert len(narrow) <= 36


def test_loading_shows_its_own_progress() -> None:
    phase = Phase(v=1, t=0, m=0, name="load", state="progress", done=3.0, total=12.0, unit="GB")
    text = plain(progress(replace(BASE, phase=phase), 100, 1, UNICODE))[0]
    assert "loading 3/12 GB  25%" in text


def test_memory_compares_like_with_like() -> None:
    assert row().measured_bytes == 110 * MIB
    assert row().planned_bytes == 111 * MIB
    text = plain(memory(replace(BASE, memory=(row(rss_bytes=2000 * MIB),)), 60, 8, UNICODE))
    assert "rank 0  110 MiB of 111 MiB planned  RSS 1.95 GiB" in text[1]
    assert UNICODE.mark in text[2]


def test_components_that_were_not_measured_are_absent() -> None:
    assert by_group(row().measured) == {"weights": 100 * MIB, "adapters": 10 * MIB}
    text = "\n".join(plain(memory(replace(BASE, memory=(row(),)), 60, 8, UNICODE)))
    assert "gradients" not in text
    assert "optimizer" not in text


def test_a_card_shows_its_own_figure_apart_from_the_allocations() -> None:
    card = row(gpu_used_bytes=60 * 2**30, capacity_bytes=80 * 2**30)
    text = plain(memory(replace(BASE, memory=(card,)), 80, 8, UNICODE))[1]
    assert text.endswith("card 60 GiB of 80 GiB")


@pytest.mark.parametrize("ranks", [1, 2, 8, 64, 1024])
@pytest.mark.parametrize(("width", "height"), [(38, 5), (60, 20), (20, 2), (10, 1)])
def test_memory_of_any_number_of_ranks_fits(ranks: int, width: int, height: int) -> None:
    rows = tuple(row(rank) for rank in range(ranks))
    text = plain(memory(replace(BASE, memory=rows), width, height, UNICODE))
    assert text[0].startswith("memory")
    assert len(text) <= max(height, 2)


def test_alerts_come_with_their_message_where_there_is_room() -> None:
    snapshot = replace(BASE, alerts=(NONFINITE, ROUNDED))
    full = plain(alerts(snapshot, 60, 12, UNICODE))
    assert full[1:4] == ["✖ nonfinite  step 2", "  loss is not finite", "  Stop."]
    assert plain(alerts(snapshot, 60, 5, UNICODE))[1:3] == ["✖ nonfinite  step 2", "  loss is not finite"]
    assert plain(alerts(snapshot, 60, 3, UNICODE))[1] == "✖ nonfinite  step 2  loss is not finite"
    assert plain(alerts(snapshot, 60, 2, UNICODE))[1] == "and 2 more"
    assert "1 critical" in full[0]
    assert "1 warning" in full[0]


def test_lost_events_are_told_even_when_nothing_else_is_wrong() -> None:
    text = plain(alerts(replace(BASE, lost_events=7), 60, 6, UNICODE))
    assert "7 events were lost before they reached the file" in text[1]


def test_text_from_the_run_is_neither_markup_nor_control() -> None:
    alert = replace_message(NONFINITE, "[bold red]x[/] \x1b]0;title\x07\x1b[2J\u202eevil")
    snapshot = replace(BASE, name="\x1b[31m[link=file:///etc]run[/]", alerts=(alert,))
    shown = "\n".join(plain(alerts(snapshot, 80, 6, UNICODE)) + plain(header(snapshot, 80, 1, UNICODE)))
    assert "[bold red]x[/]" in shown
    assert "[link=file:///etc]run[/]" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def replace_message(alert: HealthAlert, message: str) -> HealthAlert:
    return HealthAlert(code=alert.code, severity=alert.severity, step=alert.step, message=message)


def test_the_log_panel_shows_the_newest_lines() -> None:
    text = plain(log(replace(BASE, log=("one", "two", "three")), 40, 3, UNICODE))
    assert text[1:] == ["two", "three"]


def test_terminals_without_unicode_get_ascii() -> None:
    assert signs_for({"TERM": "xterm-256color"}, "UTF-8") is UNICODE
    assert signs_for({"TERM": "linux"}, "UTF-8") is ASCII
    assert signs_for({}, "ANSI_X3.4-1968") is ASCII
    snapshot = replace(BASE, memory=(row(),), alerts=(NONFINITE,))
    for draw in (header, progress, memory, alerts, log):
        assert all(line.isascii() for line in plain(draw(snapshot, 60, 8, ASCII)))


def test_a_count_below_nothing_draws_nothing() -> None:
    drawn = bar(row(measured={"policy_weights": 100 * MIB, "adapters": -5}), 20, UNICODE)
    assert drawn.cell_length == 20
