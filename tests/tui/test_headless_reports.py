"""Diagnoses for CI systems, and of many logs at once."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dpo_tui.headless.command import replay_headless

DATA = Path(__file__).parents[1] / "data"
BROKEN = str(DATA / "seed-fsdp.log")
ROUNDED = str(DATA / "seed-zero3.log")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def healthy(tmp_path: Path) -> str:
    rows = [{"step": step, "loss": 0.69 - 0.01 * step, "grad_norm": 1.0} for step in range(1, 21)]
    file = tmp_path / "trainer_state.json"
    file.write_text(json.dumps({"log_history": rows}))
    return str(file)


def test_junit_has_a_case_for_each_log_with_its_grave_alerts_as_failures(
    capsys: Capture, healthy: str
) -> None:
    code = replay_headless([healthy, BROKEN, "nowhere"], form="junit", fail_on="warning")
    suite = ElementTree.fromstring(capsys.readouterr().out)[0]
    assert code == 2
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3", "failures": "1", "errors": "1",
    }  # fmt: skip
    clean, broken, missing = suite
    assert len(clean) == 0
    assert broken.get("name") == BROKEN
    assert "empty_completions" in {failure.get("type") for failure in broken}
    assert [child.tag for child in missing] == ["error"]


def test_junit_moves_with_the_severity_that_fails(capsys: Capture) -> None:
    assert replay_headless([ROUNDED], form="junit", fail_on="critical") == 0
    assert ElementTree.fromstring(capsys.readouterr().out)[0].get("failures") == "0"


def test_one_log_that_cannot_be_read_still_makes_a_report(capsys: Capture) -> None:
    assert replay_headless(["nowhere"], form="junit", fail_on="warning") == 2
    assert ElementTree.fromstring(capsys.readouterr().out)[0].get("errors") == "1"


def test_github_gets_an_annotation_an_alert_on_a_line_that_nothing_in_the_log_can_break(
    capsys: Capture, tmp_path: Path
) -> None:
    log = tmp_path / "a,b:c%d.log"
    log.write_text("{'loss': 'nan', 'grad_norm': 1.0, 'evil%0A::error::x': 'nan'}\n" * 3)
    assert replay_headless([str(log)], form="github", fail_on="warning") == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("::error file=", "::warning file=", "::notice file=")) for line in lines)
    name = str(log).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    assert any(line.startswith(f"::error file={name},title=nonfinite::loss is not finite") for line in lines)
    assert all("%0A::error::x" not in line.replace("%250A", "") for line in lines)


def test_several_logs_are_a_line_each_and_a_summary(capsys: Capture, healthy: str) -> None:
    assert replay_headless([healthy, BROKEN, healthy, "nowhere"], fail_on="warning") == 2
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line[:1] for line in lines[:3]] == ["✓", "✗", "✓"]
    assert "completions truncated away" in lines[1]
    assert lines[3] == "4 logs: 2 clean, 1 alerts, 1 not readable"
    assert "empty_completions 1" in lines[4]
    assert told.err.count("\n") == 1


def test_a_thousand_logs_are_told_without_keeping_their_rows(capsys: Capture, healthy: str) -> None:
    assert replay_headless([healthy] * 1000, fail_on="warning") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1000 logs: 1000 clean"
