"""`dpo-daemon list`."""

from __future__ import annotations

from pathlib import Path

import click

from dpo_daemon.cli.options import json_option, print_json, runs_dir_option
from dpo_daemon.summary import Summary, current_summary
from dpo_daemon.tables import print_runs
from dpo_telemetry.cli import render
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.rundir.find import list_runs, runs_directory


@click.command("list")
@runs_dir_option
@json_option
def command(runs_dir: Path | None, as_json: bool) -> None:
    """List the runs of the runs directory, and live ones from anywhere, oldest first.

    A run that cannot be read is named on stderr and left out.
    """
    folder = runs_directory(runs_dir)
    summaries: list[tuple[str, Summary]] = []
    for run in list_runs(folder):
        try:
            summaries.append((str(run.path), current_summary(run)))
        except TelemetryError as error:
            render(error.message)
    if as_json:
        print_json({"runs": [{"path": path, "summary": summary} for path, summary in summaries]})
    elif summaries:
        print_runs(summary for _, summary in summaries)
    else:
        click.echo(f"no run in {folder}; start one with `dpo-daemon start --profile demo`")
