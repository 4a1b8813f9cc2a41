"""`dpo-daemon stop`."""

from __future__ import annotations

from pathlib import Path

import click

from dpo_daemon.cli.options import json_option, print_json, run_argument, runs_dir_option
from dpo_daemon.errors import DaemonError
from dpo_daemon.stopping import ask_to_stop, end_now, record_if_gone, wait_for_end
from dpo_daemon.summary import summarise
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.find import find_run, runs_directory


@click.command("stop")
@run_argument
@runs_dir_option
@click.option("--now", is_flag=True, help="End it at once, on this host, without saving.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=600.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the end; 0 returns at once.")  # fmt: skip
@json_option
def command(run_text: str | None, runs_dir: Path | None, now: bool, wait_s: float, as_json: bool) -> None:
    """Save RUN after the step it is in, and end it.

    Left out, RUN is the only live one; with several live, name one. Exit code 1 when the run has not
    ended in time: it still will, after its step.

    \b
    Examples:
      dpo-daemon stop
      dpo-daemon stop 20261124-0312 --now
    """
    run = find_run(run_text, runs_directory(runs_dir), live_only=run_text is None)
    attempts = run.attempts()
    if not attempts or attempts[-1].ended():
        raise DaemonError(f"{run.path}: is not running, nothing to stop; see `dpo-daemon status {run.name}`")
    attempt = attempts[-1]
    if record_if_gone(run, attempt):
        ended = True
    elif now:
        ended = end_now(run, attempt, wait_s)
    else:
        ask_to_stop(run, attempt)
        if wait_s and not as_json:
            click.echo(f"{run.name}: saving and ending after this step", err=True)
        ended = wait_for_end(attempt, wait_s)
    summary = summarise(run, read_run(run), None)
    if as_json:
        print_json({"run": run.name, "ended": ended, "state": summary.state, "reason": summary.reason})
    elif ended:
        click.echo(f"{run.name}: {summary.reason or summary.state}, step {summary.step}")
    else:
        click.echo(f"{run.name}: asked to stop; still {summary.state}, step {summary.step}")
    click.get_current_context().exit(0 if ended or wait_s == 0 else 1)
