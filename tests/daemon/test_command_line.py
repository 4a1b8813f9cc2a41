"""`dpo-daemon` at its edges: bad input is one line and exit code 2, answers are one JSON object."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo_daemon.cli import COMMANDS, daemon
from dpo_profiles.load import load_profile
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.create import create_run
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunDirectory

from .conftest import Home

Eventually = Callable[..., Any]
Ended = Callable[[RunDirectory], HostExit]

BROKEN = {
    "no TOML": 'name = "x',
    "unknown key": '[model]\nbase = "a/b"\n[train]\nlearning_rat = 1',
    "no model": 'name = "x"',
    "missing data": 'name = "x"\n[model]\nbase = "a/b"\n[data]\nname = "./no/such.jsonl"',
    "nobody's home": 'name = "x"\n[model]\nbase = "a/b"\n[data]\nname = "~no-such-user/x.jsonl"',
    "missing model": 'name = "x"\n[model]\nbase = "./no/such/model"',
    "missing adapter": 'name = "x"\n[model]\nbase = "a/b"\n[adapter]\npath = "/no/such/adapter"',
    "backend": 'name = "x"\n[model]\nbase = "a/b"\n[engine]\nbackend = "dpp"\ngpus_per_node = 2',
}


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert result.returncode == 2, (result.stdout, result.stderr)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_profile_that_cannot_run_is_refused_before_anything_is_made(home: Home, text: str) -> None:
    (home.path / "broken.toml").write_text(text)
    assert "broken.toml: " in refused(home.daemon("start", "--profile", "broken.toml"))
    assert not home.runs_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start", "--profile", "nosuch"], "no shipped profile has this name"),
        (["start"], "--profile"),
        (["start", "--profile", "demo", "--set", "loss.beat=1"], "did you mean"),
        (["stop"], "no run is live"),
        (["keep"], "holds no run"),
        (["status", "nosuch"], "no such run"),
        (["status", "/tmp"], "not a run directory"),
        (["status", "tiny.toml"], "not a run directory"),
        (["logs", "nosuch"], "no such run"),
        (["logs", "-f", "--json"], "--json"),
        (["plan", "--profile", "./nosuch.toml"], "no such file"),
        (["profiles", "show", "dem"], "did you mean demo"),
        (["rehearse", "--profile", "nosuch"], "no shipped profile has this name"),
        (["rehearse", "--profile", "demo", "--ranks", "2"], "is single, which has one rank"),
        (["dance"], "dance"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_question_is_one_line_that_names_it(home: Home, arguments: list[str], says: str) -> None:
    assert says in refused(home.daemon(*arguments))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("no json\n", "is no JSON object"),
        ("[1, 2]\n", "is no JSON object"),
        ('{"prompt": "p", "chosen": "c"}\n', "has no column rejected"),
    ],
)
def test_preference_data_without_pairs_is_refused_before_anything_is_made(
    home: Home, rows: str, says: str
) -> None:
    (home.path / "pairs.jsonl").write_text(rows)
    assert says in refused(home.daemon("start", "--profile", "demo", "--set", "data.name=pairs.jsonl"))
    assert not home.runs_dir.exists()


def test_a_runs_directory_that_cannot_be_made_is_named(home: Home) -> None:
    (home.path / "file").write_text("not a folder")
    assert "file/runs" in refused(home.daemon("start", "--profile", "tiny.toml", "--runs-dir", "file/runs"))


def test_a_run_without_an_attempt_is_refused_where_one_is_needed(home: Home) -> None:
    run = create_run(home.runs_dir, "tiny")
    assert "holds no attempt" in refused(home.daemon("logs", run.path))
    assert "is not running" in refused(home.daemon("stop", run.path))
    assert "is not running" in refused(home.daemon("keep", run.path))
    assert home.daemon("status", run.path).returncode == 0


def test_stop_with_several_live_runs_refuses_and_names_them(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    first, second = (home.start(STANDIN_STEPS="10000") for _ in range(2))
    eventually(lambda: read_run(first).last_step and read_run(second).last_step, "both to train")
    line = refused(home.daemon("stop"))
    assert first.name in line
    assert second.name in line
    assert home.daemon("stop", second.name).returncode == 0
    assert not first.attempts()[0].ended()
    assert home.daemon("stop").returncode == 0, "only one is left, and needs no name"


def test_list_shows_every_run_and_survives_a_damaged_one(home: Home, ended: Ended) -> None:
    run = home.start(STANDIN_STEPS="2")
    ended(run)
    damaged = create_run(home.runs_dir, "damaged")
    damaged.run_file.write_text("{")
    result = home.daemon("list", "--json")
    assert result.returncode == 0
    (entry,) = json.loads(result.stdout)["runs"]
    assert (entry["path"], entry["summary"]["state"]) == (str(run.path), "finished")
    assert "damaged" in result.stderr
    assert run.name in home.daemon("list").stdout


def test_status_needs_no_keeper(home: Home, ended: Ended) -> None:
    run = home.start(STANDIN_STEPS="3", STANDIN_NAN="2")
    ended(run)
    run.state_file.unlink(missing_ok=True)
    result = home.daemon("status", "--json")
    answer = json.loads(result.stdout)
    assert (answer["state"], answer["step"], answer["path"]) == ("finished", 3, str(run.path))
    assert "nonfinite" in [alert["code"] for alert in answer["alerts"]]
    assert result.returncode == 1, "a critical alert is bad news"


def test_logs_are_cleaned_of_what_could_steer_a_terminal(home: Home) -> None:
    run = home.new_run()
    run.attempt(1).log_file(0).write_bytes(b"10%\r100%\r\n\x1b[2Jcleared \xff\x07bell\nno end")
    result = home.daemon("logs", run.path)
    assert result.stdout.splitlines() == ["10%", "100%", "cleared \ufffd bell", "no end"]
    answer = json.loads(home.daemon("logs", run.path, "--json").stdout)
    assert answer["lines"][0] == "10%"


def test_logs_follow_to_the_end_of_the_run(home: Home) -> None:
    run = home.start(STANDIN_STEPS="20")
    result = home.daemon("logs", "-f", run.name)
    assert result.stdout.splitlines() == [f"step {step}" for step in range(1, 21)]


def test_the_output_of_a_rank_that_left_none_is_refused_with_those_that_did(home: Home) -> None:
    run = home.new_run()
    run.attempt(1).log_file(0).write_text("x\n")
    assert "there is that of 0" in refused(home.daemon("logs", run.path, "--rank", "7"))


def test_a_dry_run_plans_and_starts_nothing(home: Home) -> None:
    result = home.daemon("start", "--profile", "demo", "--dry-run", "--json")
    answer = json.loads(result.stdout)
    assert answer["plan"]["per_gpu"][0]["components"]["policy_weights"] > 0
    assert answer["profile"]["train"]["max_steps"] == load_profile("demo").train.max_steps
    assert not home.runs_dir.exists()
    assert home.processes() == []


def test_a_model_that_cannot_be_planned_is_started_and_that_is_said(home: Home, ended: Ended) -> None:
    result = home.daemon("start", "--profile", home.profile, STANDIN_STEPS="2")
    assert result.returncode == 0
    assert "no memory plan: " in result.stdout


def test_a_plan_that_does_not_fit_is_bad_news(home: Home) -> None:
    small = home.daemon("plan", "--profile", "zero3", "--set", "hardware.capacity_bytes=1000000000", "--json")
    assert (small.returncode, json.loads(small.stdout)["fits"]) == (1, False)
    assert home.daemon("plan", "--profile", "zero3").returncode == 0


def test_what_profiles_show_prints_is_itself_that_profile(home: Home) -> None:
    shown = home.daemon("profiles", "show", "demo", "--set", "loss.beta=0.25")
    (home.path / "mine.toml").write_text(shown.stdout)
    assert load_profile(str(home.path / "mine.toml")) == load_profile("demo", ["loss.beta=0.25"])
    names = [profile["name"] for profile in json.loads(home.daemon("profiles", "--json").stdout)["profiles"]]
    assert {"demo", "zero3", "fsdp"} <= set(names)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_of_each_what_its_own_help_says(name: str) -> None:
    command = importlib.import_module(f"dpo_daemon.cli.{name}").command
    assert command.name == name
    assert command.help.split("\n")[0].replace("RUN", "a run").startswith(COMMANDS[name][:4])
    assert "Examples:" in command.help or name == "list"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dpo_daemon.cli import daemon\n"
        "try: daemon.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('numpy', 'zmq', 'rich.table', 'pynvml', 'dpo_profiles') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    assert result.stdout.splitlines()[-1] == "[]"
    assert all(name in result.stdout for name in daemon.commands_help)


def test_a_profile_path_may_stand_anywhere(home: Home, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"chosen": "a", "rejected": "b"}\n')
    result = home.daemon("start", "--profile", "demo", "--set", f"data.name={data}", "--dry-run")
    assert result.returncode == 0, result.stderr
