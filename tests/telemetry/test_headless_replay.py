"""`dpo-tui replay --headless`: the object it prints, the page it shows, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dpo_telemetry import events
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.headless.command import replay_headless

from .conftest import Lines

DATA = Path(__file__).parents[1] / "data"

KEYS = [
    "source", "format", "rows", "first_step", "last_step", "step_source", "attempts", "superseded_rows",
    "lines_not_understood", "metrics", "alerts", "findings", "verdict",
]  # fmt: skip
METRIC_KEYS = ["count", "first", "last", "min", "max", "nonfinite"]
ALERT_KEYS = ["code", "severity", "metric", "step", "last_step", "count", "message", "advice"]
FINDING_KEYS = ["cause", "codes", "text", "try"]

Capture = pytest.CaptureFixture[str]


def replay(capsys: Capture, *paths: Path, fail_on: Any = "warning") -> tuple[int, Any]:
    """Exit code and the object on stdout."""
    code = replay_headless([str(path) for path in paths], form="json", fail_on=fail_on)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return code, json.loads(out)


def a_run(tmp_path: Path, *attempts: bytes) -> RunDirectory:
    run = create_run(tmp_path / "runs", "demo")
    for data in attempts:
        create_attempt(run, "[loss]\nbeta = 0.1\n", b"{}").event_file("rank-00000").write_bytes(data)
    return run


def test_the_seeds_zero3_line_is_rounded_to_bf16_and_nothing_worse(capsys: Capture) -> None:
    code, result = replay(capsys, DATA / "seed-zero3.log")
    assert (code, result["verdict"]) == (1, "alerts")
    (alert,) = result["alerts"]
    assert (alert["code"], alert["severity"]) == ("bf16_rounding", "warning")
    assert "multiples of 4" in alert["message"]
    assert "no margin below 0.4" in alert["message"]
    assert [finding["codes"] for finding in result["findings"]] == [["bf16_rounding"]]


def test_the_seeds_fsdp_line_is_named_by_its_cause(capsys: Capture) -> None:
    code, result = replay(capsys, DATA / "seed-fsdp.log")
    assert (code, result["verdict"]) == (1, "alerts")
    assert sorted((alert["code"], alert["metric"]) for alert in result["alerts"]) == [
        ("empty_completions", "logps/chosen"),
        ("nonfinite", "logits/rejected"),
    ]
    (finding,) = result["findings"]
    assert finding["cause"] == "completions truncated away"
    assert finding["codes"] == ["empty_completions", "nonfinite"]
    assert "max_length" in finding["text"] + finding["try"]
    assert (result["first_step"], result["step_source"], result["rows"]) == (2, "progress bar", 1)


@pytest.mark.parametrize("name", ["seed-zero3.log", "seed-fsdp.log"])
def test_the_object_has_exactly_the_keys_of_the_contract(capsys: Capture, name: str) -> None:
    _, result = replay(capsys, DATA / name)
    assert list(result) == KEYS
    assert (result["source"], result["format"]) == (str(DATA / name), "stdout")
    assert len(result["metrics"]) == 12
    for metric in result["metrics"].values():
        assert list(metric) == METRIC_KEYS
    for alert in result["alerts"]:
        assert sorted(alert) == sorted(ALERT_KEYS)
    for finding in result["findings"]:
        assert list(finding) == FINDING_KEYS


def test_numbers_that_are_not_finite_are_strings_and_leave_min_and_max_alone(
    capsys: Capture, tmp_path: Path
) -> None:
    log = tmp_path / "train.log"
    log.write_text("{'loss': nan, 'a': 1, 'grad_norm': 2.0}\n{'loss': inf, 'grad_norm': -inf}\n")
    _, result = replay(capsys, log)
    assert result["metrics"] == {
        "loss": {"count": 2, "first": "nan", "last": "inf", "min": None, "max": None, "nonfinite": 2},
        "a": {"count": 1, "first": 1.0, "last": 1.0, "min": 1.0, "max": 1.0, "nonfinite": 0},
        "grad_norm": {"count": 2, "first": 2.0, "last": "-inf", "min": 2.0, "max": 2.0, "nonfinite": 1},
    }


def test_a_healthy_log_is_clean_and_exits_0(capsys: Capture, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"{{'loss': {0.69 - n / 100}, 'grad_norm': 2.0}}\n" for n in range(30)))
    code, result = replay(capsys, log)
    assert (code, result["verdict"], result["alerts"], result["findings"]) == (0, "clean", [], [])
    assert (result["first_step"], result["last_step"], result["step_source"]) == (1, 30, "counted")


def test_the_severity_that_fails_can_be_moved(capsys: Capture) -> None:
    zero3 = DATA / "seed-zero3.log"
    code, result = replay(capsys, zero3, fail_on="critical")
    assert (code, result["verdict"]) == (0, "clean")
    assert [alert["code"] for alert in result["alerts"]] == ["bf16_rounding"]
    assert replay(capsys, DATA / "seed-fsdp.log", fail_on="critical")[0] == 1


def test_information_does_not_change_the_verdict_unless_asked(capsys: Capture, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    row = "{{'loss': 0.5, 'rewards/margins': 0.9, 'logps/chosen': {}.0, 'logps/rejected': -532.0}}\n"
    log.write_text(row.format(-536) + row.format(-540))
    code, result = replay(capsys, log)
    assert (code, result["verdict"], result["findings"]) == (0, "clean", [])
    assert [alert["severity"] for alert in result["alerts"]] == ["info"]
    assert replay(capsys, log, fail_on="info")[0] == 1


def test_a_run_directory_replays_its_effective_rows(capsys: Capture, tmp_path: Path, lines: Lines) -> None:
    first = lines.start() + b"".join(lines.step(n, loss=0.7, entropy=1.0) for n in (1, 2, 3, 4))
    second = lines.start(resumed_from_step=2) + b"".join(lines.step(n, loss=0.6) for n in (3, 4, 5))
    run = a_run(
        tmp_path, first, second + lines.evaluation(5, eval_loss=0.65) + b'{"k":"weather","v":2}\ntorn'
    )
    code, result = replay(capsys, run.path)
    assert (code, result["format"], result["step_source"]) == (0, "run_directory", "logged")
    assert (result["rows"], result["attempts"], result["superseded_rows"]) == (6, 2, 2)
    assert (result["first_step"], result["last_step"]) == (1, 5)
    assert result["lines_not_understood"] == 1
    assert result["metrics"]["loss"]["last"] == 0.6
    assert result["metrics"]["entropy"]["count"] == 2
    assert result["metrics"]["eval_loss"]["count"] == 1


def test_a_metric_that_only_superseded_rows_logged_is_left_out(
    capsys: Capture, tmp_path: Path, lines: Lines
) -> None:
    run = a_run(
        tmp_path,
        lines.start() + lines.step(1, loss=0.7) + lines.step(2, loss=0.7, entropy=1.0),
        lines.start(resumed_from_step=1) + lines.step(2, loss=0.6),
    )
    _, result = replay(capsys, run.path)
    assert list(result["metrics"]) == ["loss"]
    assert replay_headless([str(run.path)], fail_on="warning") == 0


def test_several_paths_give_one_object_and_the_worst_code(capsys: Capture, tmp_path: Path) -> None:
    clean = tmp_path / "clean.log"
    clean.write_text("{'loss': 0.6}\n")
    code, result = replay(capsys, clean, DATA / "seed-fsdp.log")
    assert code == 1
    assert [part["verdict"] for part in result["results"]] == ["clean", "alerts"]
    assert replay(capsys, clean, clean)[0] == 0


def test_one_unreadable_path_of_several_is_told_and_the_others_are_replayed(
    capsys: Capture, tmp_path: Path
) -> None:
    paths = [str(DATA / "seed-fsdp.log"), str(tmp_path / "nowhere"), str(DATA / "seed-zero3.log")]
    assert replay_headless(paths, form="json", fail_on="warning") == 2
    out, err = capsys.readouterr()
    assert len(json.loads(out)["results"]) == 2
    assert err == f"error: {tmp_path / 'nowhere'}: cannot be read: No such file or directory\n"


def test_an_unreadable_path_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError):
        replay_headless([str(tmp_path / "nowhere")], form="json", fail_on="warning")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nowhere.log", "nowhere.log: cannot be read: No such file or directory"),
        ("logs/nowhere", "logs/nowhere: cannot be read: No such file or directory"),
        ("dangling", "dangling: cannot be read: No such file or directory"),
        ("nowhere", "nowhere: no such run under .*; no file has this name either"),
        ("", "a PATH is empty; give a file, a folder or the name of a run"),
    ],
)
def test_a_path_that_leads_nowhere_is_told_as_what_it_was_meant_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "trainer_state.json").write_text('{"log_history": [{"loss": 0.5, "step": 1}]}')
    with pytest.raises(TelemetryError, match=f"^{told}"):
        replay_headless([text], fail_on="warning", runs_dir=str(tmp_path / "runs"))


@pytest.mark.parametrize("form", ["text", "junit", "github", "json"])
def test_an_encoding_that_lacks_the_pages_signs_does_not_cost_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    log = tmp_path / "déjà✗.log"
    log.write_text("{'loss': nan}\n")
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    assert replay_headless([str(log)], form=form, fail_on="warning") == 1
    out.flush()
    data = out.buffer.getvalue()
    assert ("déjà?" if form == "text" else "déjà✗") in data.decode("latin-1" if form == "text" else "utf-8")


def test_a_file_name_that_is_no_text_is_no_trouble(capsys: Capture, tmp_path: Path) -> None:
    log = tmp_path / "run\udcff.log"
    log.write_text("{'loss': 0.6}\n")
    code, result = replay(capsys, log)
    assert (code, result["source"]) == (0, f"{tmp_path}/run .log")
    assert replay_headless([str(log)], fail_on="warning") == 0


def test_the_page_names_verdict_cause_and_what_to_try(capsys: Capture) -> None:
    assert replay_headless([str(DATA / "seed-fsdp.log")], fail_on="warning") == 1
    page = capsys.readouterr().out
    for part in ("✗ alerts", "completions truncated away", "Try: Raise max_length", "logits/rejected", "×"):
        assert part in page
    assert "\x1b" not in page


def test_the_page_survives_names_that_would_steer_a_terminal(capsys: Capture, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("{'loss': 0.6, 'rewards/\\x1b[2J[red][/]': 1.0}\n")
    assert replay_headless([str(log)], fail_on="warning") == 0
    page = capsys.readouterr().out
    assert "\x1b" not in page
    assert "rewards/[red][/]" in page


@pytest.mark.parametrize(
    ("losses", "course"),
    [
        (["1", "2", "3"], "▁▅█"), (["1e308", "-1e308", "1e308"], "█▁█"), (["nan", "1", "2"], "×▁█"),
        (["nan", "inf"], "××"), (["5", "5"], "▁▁"), (["5e-324", "0.0"], "█▁"),
    ],
)  # fmt: skip
def test_the_course_of_a_metric_is_drawn_whatever_its_values(
    capsys: Capture, tmp_path: Path, losses: list[str], course: str
) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"{{'loss': {loss}}}\n" for loss in losses))
    replay_headless([str(log)], fail_on="warning")
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("loss ")]
    assert row.split()[-1] == course


def test_a_run_that_failed_before_its_first_row_is_bad_news(
    tmp_path: Path, capsys: Capture, lines: Lines
) -> None:
    oom = events.Alert(**lines.stamp(), code="oom", severity="critical", message="out of memory\x1b]0;x\x07")
    run = a_run(tmp_path, lines.start() + lines.event(oom))
    code, result = replay(capsys, run.path)
    assert (code, result["rows"], result["first_step"]) == (1, 0, None)
    assert replay_headless([str(run.path)], fail_on="warning") == 1
    page = capsys.readouterr().out
    assert "Out of memory" in page
    assert "\x1b" not in page


@pytest.mark.parametrize("profile", ["demo", "qwen2.5-7b"])
def test_a_run_is_replayed_by_its_name(tmp_path: Path, capsys: Capture, lines: Lines, profile: str) -> None:
    run = create_run(tmp_path / "runs", profile)
    attempt = create_attempt(run, "", b"{}")
    attempt.event_file("rank-00000").write_bytes(lines.start() + lines.step(1, loss=0.69))
    runs_dir = str(tmp_path / "runs")
    assert replay_headless([run.name], form="json", fail_on="warning", runs_dir=runs_dir) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1
