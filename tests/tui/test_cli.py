"""The command line: what was asked wrongly is one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tui.conftest import RunBuilder

from dpo_telemetry.cli import exit_code_of
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
        "attach": ["--plain", "--runs-dir", "run"],
        "replay": ["--fail-on", "--format", "--headless", "--json", "--runs-dir", "paths"],
    }
