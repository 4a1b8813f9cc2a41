"""The small model, pairs and adapter of a rehearsal, which the trainer's own program makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from dpo_daemon.errors import DaemonError
from dpo_daemon.launch.launcher import python_module
from dpo_telemetry.cli import EXIT_USAGE
from dpo_telemetry.text import printable

MODULE = "dpo_trainer.rehearsal"


class Prepared(msgspec.Struct, frozen=True):
    """What stands in for the profile's own."""

    model: str
    data: str
    adapter: str
    """Empty where the profile makes a new adapter."""
    notes: list[str]
    """What was replaced, and why."""


class PreparationFailed(Exception):  # noqa: N818 - an answer of the rehearsal, not an error of ours
    """The preparation came to no end; the text is its last line."""


def prepare(profile_file: Path, into: Path, ranks: int) -> Prepared:
    """Make everything that a profile is rehearsed with, below `into`.

    Raises:
        DaemonError: the profile's parts cannot be read.
        PreparationFailed: it failed for another reason.
    """
    command = [
        *python_module(MODULE),
        str(profile_file),
        "--into",
        str(into),
        "--ranks",
        str(ranks),
        "--json",
    ]
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if made.returncode != 0:
        said = _last_line(made.stderr) or f"ended with exit code {made.returncode} and said nothing"
        if made.returncode == EXIT_USAGE:
            raise DaemonError(said)
        raise PreparationFailed(said)
    try:
        return msgspec.json.decode(made.stdout, type=Prepared)
    except msgspec.MsgspecError as error:
        raise PreparationFailed(f"its answer cannot be read: {error}") from None


def _last_line(output: bytes) -> str:
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1].removeprefix("error: ")) if lines else ""
