"""`dpo-daemon start`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

from dpo_daemon import starting
from dpo_daemon.cli.options import json_option, print_json, profile_option, runs_dir_option, set_option
from dpo_daemon.foreground import follow_to_the_end
from dpo_daemon.plans.draw import print_plan
from dpo_daemon.preflight import CHECKS
from dpo_daemon.starting import Prepared
from dpo_profiles.render import to_toml
from dpo_telemetry.rundir.find import runs_directory
from dpo_telemetry.rundir.layout import RunDirectory


@click.command("start")
@profile_option
@set_option
@runs_dir_option
@click.option("--foreground", is_flag=True, help="Print the log lines, and end with the run's exit code.")
@click.option("--dry-run", is_flag=True, help="Check and plan, and start nothing.")
@click.option(
    "--force",
    "forced",
    multiple=True,
    type=click.Choice(list(CHECKS)),
    metavar="CHECK",
    help=f"Start against a finding of this check ({', '.join(CHECKS)}); may be given again.",
)
@json_option
def command(
    profile_name: str,
    overrides: tuple[str, ...],
    runs_dir: Path | None,
    foreground: bool,
    dry_run: bool,
    forced: tuple[str, ...],
    as_json: bool,
) -> None:
    """Start a run.

    It goes on when this terminal is closed. With --foreground the log lines are printed until the
    run ends; Ctrl-C then saves and ends it, a second one ends it at once.

    First the profile is checked: what could only fail or learn nothing is refused, with exit code 1
    and one line a finding. A finding you know better about is passed with --force and its name.

    \b
    Examples:
      dpo-daemon start --profile demo
      dpo-daemon start --profile demo --set train.max_steps=100 --set loss.beta=0.2
      dpo-daemon start --profile ./mine.toml --dry-run
    """
    prepared = starting.prepare(profile_name, overrides, forced, dry_run=dry_run)
    for finding in prepared.findings:
        click.echo(f"error: {profile_name}: {finding.name}: {finding.text}", err=True)
    if dry_run:
        _print_prepared(prepared, as_json)
        click.get_current_context().exit(1 if prepared.findings else 0)
    if prepared.findings:
        if as_json:
            print_json({"preflight": prepared.findings})
        click.get_current_context().exit(1)
    run = starting.start(prepared, runs_directory(runs_dir))
    if foreground:
        if not as_json:
            _print_started(run, prepared)
        summary, code = follow_to_the_end(run, quiet=as_json)
        if as_json:
            print_json(summary)
        click.get_current_context().exit(code)
    elif as_json:
        attempt = run.attempts()[-1].number
        answer = {"run": run.name, "id": run.info().id, "path": str(run.path), "attempt": attempt}
        print_json({**answer, "preflight": prepared.findings})
    else:
        _print_started(run, prepared)


def _print_started(run: RunDirectory, prepared: Prepared) -> None:
    click.echo(f"started {run.name} in {run.path}")
    if prepared.note:
        click.echo(f"  {prepared.note}")
    click.echo(f"  watch it    dpo-tui attach {run.name}")
    click.echo(f"  its output  dpo-daemon logs -f {run.name}")
    click.echo(f"  end it      dpo-daemon stop {run.name}")


def _print_prepared(prepared: Prepared, as_json: bool) -> None:
    if as_json:
        profile = tomllib.loads(to_toml(prepared.profile, comments=False))
        answer = {"profile": profile, "plan": prepared.plan, "fits": prepared.fits, "note": prepared.note}
        print_json({**answer, "preflight": prepared.findings})
        return
    click.echo(f"{prepared.profile.name}: {prepared.profile.description}")
    if prepared.plan is not None:
        print_plan(prepared.plan)
    if prepared.note:
        click.echo(prepared.note)
    click.echo("nothing was started")
