"""`dpo-daemon rehearse`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from dpo_daemon.cli.options import json_option, print_json, profile_option, runs_dir_option, set_option
from dpo_daemon.rehearse.attempts import Tell
from dpo_daemon.rehearse.rehearsal import Rehearsal
from dpo_daemon.tables import print_verdict
from dpo_telemetry.cli import EXIT_BAD_NEWS, EXIT_FINE
from dpo_telemetry.rundir.find import runs_directory

LIMIT_S = 1800.0


@click.command("rehearse")
@profile_option
@set_option
@runs_dir_option
@click.option(
    "--ranks", type=click.IntRange(min=1), metavar="N", help="Ranks; else one a GPU, or two on a CPU."
)
@click.option("--limit", "limit_s", type=click.FloatRange(min=0, min_open=True), default=LIMIT_S, show_default=True,
              metavar="SECONDS", help="End an attempt that takes longer.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the rehearsal's run; one that failed is kept anyway.")
@json_option
def command(
    profile_name: str,
    overrides: tuple[str, ...],
    runs_dir: Path | None,
    ranks: int | None,
    limit_s: float,
    keep: bool,
    as_json: bool,
) -> None:
    """Rehearse a profile on a model shrunk to a few layers, on whatever is here.

    The launcher, the engine and its own file, the loss and the kind of data are the profile's. It makes
    two steps, evaluates and saves, then resumes from the first step and compares. Exit code 1 when a
    check fails.

    \b
    Examples:
      dpo-daemon rehearse --profile zero3
      dpo-daemon rehearse --profile zero3 --ranks 4 --keep
    """
    with _telling(quiet=as_json) as tell, _terminable():
        rehearsal = Rehearsal(profile_name, overrides, ranks, limit_s, tell)
        verdict = rehearsal.perform(runs_directory(runs_dir), keep=keep)
    if as_json:
        print_json(verdict)
    else:
        print_verdict(verdict)
    click.get_current_context().exit(EXIT_FINE if verdict.ok else EXIT_BAD_NEWS)


@contextmanager
def _telling(*, quiet: bool) -> Iterator[Tell]:
    """A line that moves on a terminal, and nothing anywhere else."""
    console = Console(stderr=True, quiet=quiet)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield status.update


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the job and cleans up as Ctrl-C does."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
