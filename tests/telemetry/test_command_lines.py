"""How every command line ends: the exit code, one line on stderr, and a traceback in the log only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
import click
from dpo_telemetry import cli
from dpo_telemetry.errors import TelemetryError

def deep():
    deep()

@click.group()
def program():
    pass

@program.command()
@click.argument("what")
@click.option("--count", type=int)
@click.pass_context
def do(ctx, what, count):
    match what:
        case "well": click.echo("fine")
        case "much":
            for _ in range(100_000): click.echo("x" * 100)
        case "bad-news": ctx.exit(1)
        case "code": return 1
        case "refused": raise TelemetryError("run.json: name: two\\nlines \\x1b[31m")
        case "missing": open("/nowhere/file")
        case "bug": raise RuntimeError("broken \\x1b[2J")
        case "deep": deep()
        case "interrupted": os.kill(os.getpid(), signal.SIGINT); signal.pause()

cli.run(program, "program")
"""


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def log_of(home: Path) -> str:
    return "".join(path.read_text() for path in home.rglob("program.log"))


@pytest.mark.parametrize(
    ("args", "code", "stderr"),
    [
        (["do", "well"], 0, ""),
        (["do", "bad-news"], 1, ""),
        (["do", "code"], 1, ""),
        (["do", "refused"], 2, "error: run.json: name: two lines \n"),
        (["do", "missing"], 2, "error: /nowhere/file: No such file or directory\n"),
        (["do", "well", "--count", "x"], 2,
         "error: Invalid value for '--count': 'x' is not a valid integer. See `program do --help`.\n"),
        (["do"], 2, "error: Missing argument 'WHAT'. See `program do --help`.\n"),
        (["xyzzy"], 2, "error: No such command 'xyzzy'. See `program --help`.\n"),
        ([], 2, "error: Missing command. See `program --help`.\n"),
    ],
)  # fmt: skip
def test_each_end_has_its_code_and_at_most_one_line(args: list[str], code: int, stderr: str) -> None:
    result = run(*args)
    assert (result.returncode, result.stderr) == (code, stderr)


@pytest.mark.parametrize(("what", "name"), [("bug", "RuntimeError"), ("deep", "RecursionError")])
def test_a_bug_is_70_with_one_line_and_its_traceback_in_the_log(home: Path, what: str, name: str) -> None:
    result = run("do", what)
    assert result.returncode == 70
    assert result.stderr.startswith(f"error: this is a bug in program: {name}: ")
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    (log,) = home.rglob("program.log")
    assert str(log) in result.stderr
    assert "Traceback" in log.read_text()


def test_a_bug_without_a_place_for_its_log_is_still_one_line(home: Path) -> None:
    (home / "xdg_state_home").write_text("a file where the folder should be")
    result = run("do", "bug")
    assert result.returncode == 70
    assert "the traceback is in no log" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_cause_of_a_refusal_by_the_system_is_in_the_log(home: Path) -> None:
    run("do", "missing")
    assert "FileNotFoundError" in log_of(home)


def test_an_interrupt_is_130_without_a_traceback(home: Path) -> None:
    result = run("do", "interrupted")
    assert (result.returncode, result.stderr.strip()) == (130, "")
    assert log_of(home) == ""


@pytest.mark.parametrize("what", ["well", "much"])
def test_a_reader_that_leaves_early_is_no_error(home: Path, what: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-c", PROGRAM, "do", what]
    result = subprocess.run(
        command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write_end)
    assert (result.returncode, result.stderr) == (0, "")
    assert log_of(home) == ""
