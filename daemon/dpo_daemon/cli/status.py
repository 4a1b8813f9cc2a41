"""`dpo-daemon status`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from dpo_daemon.cli.options import json_option, print_json, run_argument, runs_dir_option
from dpo_daemon.summary import read_summary, summarise
from dpo_daemon.tables import print_status
from dpo_telemetry.health.findings import findings
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.find import find_run, runs_directory

BAD_STATES = ("failed", "hung", "silent")


@click.command("status")
@run_argument
@runs_dir_option
@json_option
def command(run_text: str | None, runs_dir: Path | None, as_json: bool) -> None:
    """Show how RUN stands, read from its directory: no keeper is needed.

    Exit code 1 when it failed, hangs or has fallen silent, or when an alert is critical.

    \b
    Examples:
      dpo-daemon status
      dpo-daemon status runs/20261124-0312-demo --json
    """
    run = find_run(run_text, runs_directory(runs_dir))
    written = read_summary(run)
    model = read_run(run)
    keeper = written.keeper if written is not None and written.keeper_alive() else None
    summary = summarise(run, model, keeper)
    if as_json:
        print_json(
            {
                **msgspec.structs.asdict(summary),
                "path": str(run.path),
                "alerts": model.alerts,
                "findings": findings(model.alerts),
            }
        )
    else:
        print_status(run, model, summary, keeper is not None)
    bad = summary.state in BAD_STATES or summary.alerts.get("critical", 0) > 0
    click.get_current_context().exit(1 if bad else 0)
