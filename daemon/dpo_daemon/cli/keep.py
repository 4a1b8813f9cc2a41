"""`dpo-daemon keep`."""

from __future__ import annotations

from pathlib import Path

import click

from dpo_daemon import processes
from dpo_daemon.cli.options import json_option, print_json, run_argument, runs_dir_option
from dpo_daemon.errors import DaemonError
from dpo_telemetry.rundir.find import find_run, runs_directory


@click.command("keep")
@run_argument
@runs_dir_option
@json_option
def command(run_text: str | None, runs_dir: Path | None, as_json: bool) -> None:
    """Serve RUN, whose keeper is gone, to clients again.

    The job does not notice: it was never the keeper's child. Clients that are attached go on where
    they stand.

    \b
    Examples:
      dpo-daemon keep
      dpo-daemon keep runs/20261124-0312-demo
    """
    run = find_run(run_text, runs_directory(runs_dir))
    run.info()
    attempts = run.attempts()
    if not attempts or attempts[-1].ended():
        raise DaemonError(f"{run.path}: is not running; look at it with `dpo-tui replay {run.path}`")
    processes.start_detached("dpo_daemon.keeper", [str(run.path)])
    if as_json:
        print_json({"run": run.name, "path": str(run.path), "attempt": attempts[-1].number})
    else:
        click.echo(f"{run.name} is served again; watch it with `dpo-tui attach {run.name}`")
