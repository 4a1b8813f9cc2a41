"""What is written to the terminal when an alert rises or the run ends."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tui.conftest import RunBuilder, drawn, wait_until
from textual.drivers.headless_driver import HeadlessDriver

from dpo_telemetry.events import Severity
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.findings import findings
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.reader.status import Status
from dpo_tui.app import MonitorApp
from dpo_tui.attention import Attention
from dpo_tui.notify import APART_S, SETTLED_S, Note, Notifier, sequence
from dpo_tui.snapshot import Snapshot

NOTE = Note("dpo-tui demo", "critical: numbers overflow", "critical")
XTERM = {"TERM": "xterm-256color"}


def alert(code: str, severity: Severity = "warning", **fields: Any) -> HealthAlert:
    return HealthAlert(code=code, severity=severity, step=5, message=f"{code} was seen", **fields)


class Window:
    """A notifier with a clock and what it told."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.told: list[Note] = []
        self.notifier = Notifier(self.told.append, clock=lambda: self.now_s)
        self.mildest: Severity | None = "warning"
        self.snapshot = Snapshot("demo", 0.0, "live", Status("training"), step=7, run_id="one")

    def opened(self, *alerts: HealthAlert) -> Window:
        """A window that has stood open for a while, over these alerts."""
        self.see(*alerts)
        self.now_s += SETTLED_S + 1
        return self.see(*alerts)

    def see(self, *alerts: HealthAlert, **changed: object) -> Window:
        found = tuple(findings(alerts))
        self.snapshot = replace(self.snapshot, alerts=alerts, findings=found, **changed)  # type: ignore[arg-type]
        self.notifier.receive(self.snapshot, self.mildest)
        return self


def test_by_default_it_is_osc_9_and_the_bell() -> None:
    assert sequence(NOTE, XTERM) == "\x1b]9;dpo-tui demo: critical: numbers overflow\a\a"


@pytest.mark.parametrize(
    "environment",
    [
        {"TERM": "rxvt-unicode-256color"}, {"TERM": "foot"}, XTERM | {"VTE_VERSION": "7600"},
        XTERM | {"KONSOLE_VERSION": "230804"}, XTERM | {"TERM_PROGRAM": "gnome-terminal"},
    ],
)  # fmt: skip
def test_terminals_that_know_osc_777_get_that(environment: dict[str, str]) -> None:
    assert sequence(NOTE, environment) == "\x1b]777;notify;dpo-tui demo;critical: numbers overflow\a\a"


@pytest.mark.parametrize("term", ["", "dumb", "linux"])
def test_terminals_that_would_print_it_get_the_bell_alone(term: str) -> None:
    assert sequence(NOTE, {"TERM": term}) == "\a"
    assert sequence(NOTE, {}) == "\a"


def test_inside_tmux_it_is_passed_through_with_every_escape_doubled() -> None:
    written = sequence(
        NOTE, {"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0", "VTE_VERSION": "7600"}
    )
    assert written == "\x1bPtmux;\x1b\x1b]9;dpo-tui demo: critical: numbers overflow\a\x1b\\\a"


def test_inside_screen_it_is_passed_through_too() -> None:
    assert sequence(NOTE, {"TERM": "screen", "STY": "1.a"}) == (
        "\x1bP\x1b]9;dpo-tui demo: critical: numbers overflow\a\x1b\\\a"
    )


@pytest.mark.parametrize(
    "environment",
    [XTERM, {"TERM": "foot"}, {"TERM": "tmux-256color", "TMUX": "x"}, {"TERM": "screen", "STY": "x"}],
)
def test_nothing_in_the_text_can_steer_the_terminal(environment: dict[str, str]) -> None:
    hostile = "a\x1b]0;owned\x07b\x1b\\c\x9c\x9d52;c;eA==\x07;d\r\n\x1b[2J\x1bPq\u202e\x00\x7f" + "e" * 5000
    safe = sequence(Note("t", "b", "warning"), environment)
    written = sequence(Note(hostile, hostile, "warning"), environment)
    for control in ("\x1b", "\a", "\x9c", "\x9d", "\r", "\n", "\u202e", "\x00", "\x7f"):
        assert written.count(control) == safe.count(control)
    assert "owned" not in written
    assert len(written) < 400


def test_the_fields_of_osc_777_cannot_be_forged() -> None:
    written = sequence(Note("a;b", "c;d", "warning"), {"TERM": "foot"})
    assert written == "\x1b]777;notify;a,b;c,d\a\a"


def test_what_was_there_when_the_window_opened_is_not_told() -> None:
    window = Window().opened(alert("nonfinite", "critical"))
    window.see(alert("nonfinite", "critical"))
    assert window.told == []


def test_an_alert_that_rises_is_told_once() -> None:
    window = Window().opened()
    window.see(alert("loss_spike"))
    assert window.told == [
        Note("dpo-tui demo", "warning: training is unstable: loss_spike was seen", "warning")
    ]
    window.now_s += 10 * APART_S
    window.see(alert("loss_spike"))
    assert len(window.told) == 1


def test_one_that_gets_worse_is_told_again() -> None:
    window = Window().opened(alert("nonfinite"))
    window.see(alert("nonfinite", "critical"))
    assert [note.severity for note in window.told] == ["critical"]


def test_info_is_not_told_and_nothing_milder_than_asked_for() -> None:
    window = Window().opened()
    window.see(alert("margin_small", "info"))
    window.mildest = "critical"
    window.see(alert("margin_small", "info"), alert("loss_spike"))
    assert window.told == []
    window.see(alert("loss_spike"), alert("nonfinite", "critical"))
    assert [note.severity for note in window.told] == ["critical"]


def test_several_within_a_short_time_are_told_together() -> None:
    window = Window().opened()
    window.see(alert("loss_spike"))
    window.now_s += APART_S / 2
    window.see(alert("loss_spike"), alert("gpu_throttled"))
    window.see(alert("loss_spike"), alert("gpu_throttled"), alert("disk_low", "critical"))
    assert len(window.told) == 1
    window.now_s += APART_S
    window.see(alert("loss_spike"), alert("gpu_throttled"), alert("disk_low", "critical"))
    assert [note.body for note in window.told[1:]] == [
        "critical: disk is nearly full: disk_low was seen, and 1 more"
    ]


def test_a_symptom_is_told_by_its_cause() -> None:
    window = Window().opened()
    window.see(alert("empty_completions", "critical"), alert("nonfinite"))
    assert [note.body for note in window.told] == [
        "critical: completions truncated away: empty_completions was seen"
    ]


def test_muted_codes_are_not_told() -> None:
    window = Window().opened()
    window.see(alert("loss_spike"), attention=Attention(muted=frozenset({"loss_spike"})))
    assert window.told == []


def test_switched_off_nothing_is_told_and_nothing_is_saved_up() -> None:
    window = Window().opened()
    window.mildest = None
    window.see(alert("loss_spike"), status=Status("failed"))
    window.mildest = "warning"
    window.see(alert("loss_spike"))
    assert window.told == []


@pytest.mark.parametrize(
    ("state", "severity"),
    [("finished", "info"), ("stopped", "info"), ("failed", "critical"), ("hung", "critical")],
)
def test_the_end_of_the_run_is_told(state: str, severity: str) -> None:
    window = Window().opened()
    window.see(status=Status(state, "why"))  # type: ignore[arg-type]
    window.see()
    assert window.told == [Note("dpo-tui demo", f"{state} at step 7 (why)", severity)]  # type: ignore[arg-type]


def test_a_run_that_had_ended_before_is_no_news_and_neither_is_another_that_is_opened() -> None:
    window = Window()
    window.see(status=Status("finished"))
    window.now_s += SETTLED_S + 1
    window.see(run_id="two", status=Status("failed"))
    window.now_s += SETTLED_S + 1
    window.see()
    assert window.told == []


def test_what_a_log_that_takes_long_to_read_holds_is_no_news() -> None:
    window = Window()
    window.see(reading=0.1)
    window.now_s += 10 * SETTLED_S
    window.see(alert("loss_spike"), reading=0.9)
    window.see(alert("loss_spike"), alert("gpu_throttled"), reading=None)
    window.now_s += SETTLED_S + 1
    window.see(alert("loss_spike"), alert("gpu_throttled"), status=Status("training"))
    assert window.told == []
    window.see(alert("disk_low", "critical"))
    assert len(window.told) == 1


async def test_the_app_writes_it_to_its_terminal_and_shows_a_toast(
    live_run: RunBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[str] = []
    monkeypatch.setattr(HeadlessDriver, "write", lambda self, data: written.append(data))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("TMUX", "STY", "VTE_VERSION", "KONSOLE_VERSION", "TERM_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    now_s = live_run.now_s
    app = MonitorApp(DirectorySource(live_run.run), "run", clock=lambda: now_s)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        now_s += SETTLED_S + 1
        seen = app.snapshot
        await wait_until(lambda: app.snapshot is not seen, pilot)
        live_run.step(121, loss=math.nan)
        live_run.flush()
        await wait_until(lambda: any("\x1b]9;" in data for data in written), pilot)
        text = "critical: numbers overflow: loss is not finite, once, first at step 121"
        told = [data for data in written if "\x1b]9;" in data]
        assert told == [f"\x1b]9;dpo-tui 20261124-0312-demo: {text}\a\a"]
        assert [toast.severity for toast in app._notifications] == ["error"]
