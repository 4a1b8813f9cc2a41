"""The command line: what was asked wrongly is one line and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tui.conftest import RunBuilder

from dpo_telemetry.cli import exit_code_of
from dpo_telemetry.identity import current
from dpo_telemetry.reader.source import Source
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.rundir.live import register, unregister
from dpo_tui.cli import cli


def run(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = exit_code_of(cli, "dpo-tui", args)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["attach", "--plain", "nowhere"], "nowhere: no such run"),
        (["attach", "--plain", "/etc"], "not a run directory"),
        (["attach", "--plain", "a", "b"], "--plain follows one run"),
        (["replay", "--json", "x"], "--json, --format and --fail-on go with --headless"),
        (["replay", "a", "b"], "shows one run"),
        (["replay"], "Missing argument"),
        (["replay", "--fail-on", "awful", "x"], "awful"),
    ],
)
def test_a_wrong_question_is_answered_in_one_line(
    args: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(args, capsys)
    assert code == 2
    assert out == ""
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "instead"), [(["attach"], "attach --plain"), (["replay", "x"], "replay --headless")]
)
def test_without_a_terminal_the_other_way_is_named(
    args: list[str], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(args, capsys)
    assert code == 2
    assert f"is not a terminal; use {instead}" in err


def test_following_by_prefix_prints_the_run(
    new_run: Callable[..., RunBuilder], capsys: pytest.CaptureFixture[str]
) -> None:
    builder = new_run(max_steps=2)
    builder.train(2)
    builder.exit()
    builder.flush()
    args = ["attach", "--plain", "2026", "--runs-dir", str(builder.run.path.parent)]
    code, out, _ = run(args, capsys)
    assert code == 0
    assert "step 2/2" in out
    assert "verdict           clean" in out


@pytest.fixture
def two_live(
    new_run: Callable[..., RunBuilder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[RunBuilder]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    builders = [new_run(), new_run()]
    for at, builder in enumerate(builders):
        path = builder.run.path.with_name(f"20261124-0{at}00-live")
        builder.run = RunDirectory(builder.run.path.rename(path))
        info = json.loads(builder.run.run_file.read_text()) | {"name": path.name}
        builder.run.run_file.write_text(json.dumps(info))
        register(builder.run, current())
    return builders


def test_plain_picks_none_of_several_live_runs(
    two_live: list[RunBuilder], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["attach", "--plain"], capsys)
    assert (code, out) == (2, "")
    assert err == "error: 2 runs are live (20261124-0000-live, 20261124-0100-live); name one of them\n"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command line hands to the window, on a terminal that is not there."""
    given: list[dict[str, Any]] = []

    def show(source: Source | None, name: str = "", **options: Any) -> int:
        given.append({"source": source, "name": name, **options})
        return 0

    monkeypatch.setattr("dpo_tui.cli.require_terminal", lambda instead: None)
    monkeypatch.setattr("dpo_tui.cli.show", show)
    return given


def test_attach_lists_several_live_runs(
    two_live: list[RunBuilder], shown: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["attach"], capsys)[0] == 0
    assert shown[0]["source"] is None
    assert shown[0]["runs"].named == ()


def test_attach_lists_the_runs_that_are_named_a_damaged_one_among_them(
    two_live: list[RunBuilder], shown: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (builder.run for builder in two_live)
    other.run_file.write_text("{")
    assert run(["attach", str(one.path), str(other.path)], capsys)[0] == 0
    assert shown[0]["source"] is None
    assert shown[0]["runs"].named == (one, other)
    code, _, err = run(["attach", str(one.path), str(one.path / "nowhere")], capsys)
    assert (code, len(shown)) == (2, 1)
    assert "nowhere: not a run directory" in err


def test_attach_opens_the_only_live_run_and_may_control_it(
    two_live: list[RunBuilder], shown: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    unregister(two_live[0].run)
    assert run(["attach"], capsys)[0] == 0
    assert shown[0]["name"] == two_live[1].run.name
    assert shown[0]["source"].link == "file"
    assert shown[0]["control"].refusal() == ""


def test_help_loads_neither_textual_nor_numpy() -> None:
    program = (
        "import sys; from dpo_telemetry.cli import exit_code_of; from dpo_tui.cli import cli\n"
        "code = exit_code_of(cli, 'dpo-tui', ['--help'])\n"
        "assert not {'textual', 'numpy', 'rich', 'zmq'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dpo-tui attach" in done.stdout


def test_the_options_are_those_that_were_agreed() -> None:
    surface = {
        name: sorted(
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        )
        for name, command in cli.commands.items()
    }
    assert surface == {
        "attach": ["--plain", "--runs-dir", "runs"],
        "replay": ["--fail-on", "--format", "--headless", "--json", "--runs-dir", "paths"],
    }
