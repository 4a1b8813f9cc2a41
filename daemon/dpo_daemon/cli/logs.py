"""`dpo-daemon logs`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import click

from dpo_daemon.cli.options import json_option, print_json, run_argument, runs_dir_option
from dpo_daemon.errors import DaemonError
from dpo_daemon.follow import LogReader, follow, launcher_logs, whole_log
from dpo_telemetry.rundir.find import find_run, runs_directory


@click.command("logs")
@run_argument
@runs_dir_option
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the run ends.")
@click.option(
    "--rank", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Whose output."
)
@json_option
def command(run_text: str | None, runs_dir: Path | None, following: bool, rank: int, as_json: bool) -> None:
    """Print what a rank of RUN's newest attempt wrote to stdout and stderr.

    Where no rank came to a log of its own, it is what their launcher wrote.

    Escape sequences are taken out, so that no output can steer the terminal.

    \b
    Examples:
      dpo-daemon logs -f
      dpo-daemon logs 20261124-0312 --rank 3
    """
    if following and as_json:
        raise click.UsageError("--json prints one object, which --follow never ends.")
    run = find_run(run_text, runs_directory(runs_dir))
    if not run.attempts():
        raise DaemonError(f"{run.path}: holds no attempt, so there is no output")
    attempt = run.attempts()[-1]
    path = attempt.log_file(rank)
    fallback = launcher_logs(attempt) if rank == 0 and not path.exists() else []
    if not path.exists() and not fallback and (rank > 0 or attempt.ended()):
        ranks = ", ".join(
            str(int(p.stem.removeprefix("rank-"))) for p in sorted(attempt.logs_dir.glob("rank-*"))
        )
        raise DaemonError(
            f"{path}: rank {rank} left no output; there is {f'that of {ranks}' if ranks else 'none'}"
        )
    if following:
        for line in follow(LogReader(path), attempt):
            click.echo(line)
        return
    lines = chain.from_iterable(whole_log(shown) for shown in fallback or [path])
    if as_json:
        print_json({"run": run.name, "attempt": attempt.number, "rank": rank, "lines": list(lines)})
    else:
        for line in lines:
            click.echo(line)
