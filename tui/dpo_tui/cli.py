"""`dpo-tui`: watch a live run, look at a finished one, diagnose a log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from dpo_telemetry.cli import run as run_command
from dpo_telemetry.events import SEVERITIES, Severity
from dpo_tui.errors import TuiError

if TYPE_CHECKING:
    from dpo_telemetry.reader.source import Source
    from dpo_tui.headless.command import Form

RUNS_DIR = click.option(
    "--runs-dir", metavar="DIR", help="Where runs live; $DPO_RUNS_DIR or ./runs when left out."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dpo-deck", prog_name="dpo-tui")
def cli() -> None:
    """Watch preference-tuning runs in the terminal.

    \b
    Examples:
      dpo-tui attach                     the live run, or the newest one
      dpo-tui attach 20261124-0312-demo  a run by name, by a prefix of it, or by path
      dpo-tui replay runs/20261124-0312-demo
      dpo-tui replay --headless --json trainer_state.json
    """


@cli.command()
@click.argument("run", required=False)
@RUNS_DIR
@click.option("--plain", is_flag=True, help="Print lines as they come, then a summary; needs no terminal.")
def attach(run: str | None, runs_dir: str | None, plain: bool) -> int:
    """Watch RUN live: through its keeper, or from its directory when it has none.

    RUN is a run directory, its name or a unique prefix; left out, it is the only live run, else
    the newest. Leaving the monitor leaves the run alone. With --plain the exit code is 0 when the
    run ended well and 1 otherwise.

    \b
    Examples:
      dpo-tui attach
      dpo-tui attach runs/20261124-0312-demo
      dpo-tui attach --plain 20261124 | tee demo.log
    """
    from dpo_telemetry.rundir.find import find_run, runs_directory
    from dpo_tui.sources import open_run

    if not plain:
        require_terminal("attach --plain")
    found = find_run(run, runs_directory(runs_dir))
    source = open_run(found)
    if plain:
        from dpo_tui.follow import follow

        return follow(found, source)
    return show(source, found.name)


@cli.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--headless", is_flag=True, help="Print a diagnosis instead of opening the monitor.")
@click.option("--json", "as_json", is_flag=True, help="With --headless: one JSON object on stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "junit", "github")),
    help="With --headless: json is --json; junit is XML, github annotates a workflow.",
)
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    help="With --headless: the mildest alert that gives exit code 1; warning when left out.",
)
@RUNS_DIR
def replay(
    paths: tuple[str, ...],
    headless: bool,
    as_json: bool,
    form: Form | None,
    fail_on: Severity | None,
    runs_dir: str | None,
) -> int:
    """Look at a finished run again, or diagnose logs with --headless.

    PATH is a run directory, its name or a unique prefix. With --headless it may also be anybody's
    log, found out by its content (a trainer_state.json or a checkpoint folder, raw output, JSON
    lines, CSV, TensorBoard's event files, a notebook; also compressed), or - for standard input,
    and there may be several; the exit code is 0 for clean logs, 1 for alerts, 2 for what cannot
    be read.

    \b
    Examples:
      dpo-tui replay runs/20261124-0312-demo
      dpo-tui replay --headless train.log
      ssh node1 cat train.log | dpo-tui replay --headless -
      dpo-tui replay --headless --json --fail-on critical runs/*
      dpo-tui replay --headless --format junit logs/*.json > diagnosis.xml
    """
    if headless:
        from dpo_tui.headless.command import replay_headless

        if as_json and form not in (None, "json"):
            raise click.UsageError(f"--json and --format {form} are two forms; ask for one.")
        form = "json" if as_json else form or "text"
        return replay_headless(paths, form=form, fail_on=fail_on or "warning", runs_dir=runs_dir)
    if as_json or form or fail_on:
        raise click.UsageError("--json, --format and --fail-on go with --headless.")
    if len(paths) > 1:
        raise click.UsageError("The monitor shows one run; several PATHs go with --headless.")
    require_terminal("replay --headless")
    from dpo_telemetry.reader.source import DirectorySource
    from dpo_telemetry.rundir.find import find_run, runs_directory

    found = find_run(paths[0], runs_directory(runs_dir))
    return show(DirectorySource(found), found.name)


def require_terminal(instead: str) -> None:
    """Refuse to draw where nobody can see it.

    Raises:
        TuiError: a stream is not a terminal, or the terminal cannot place its cursor.
    """
    # The screen is drawn on stderr; keys come from stdin.
    for name, stream in (("stdin", sys.stdin), ("stdout", sys.stdout), ("stderr", sys.stderr)):
        if not stream.isatty():
            raise TuiError(f"{name} is not a terminal; use {instead}")
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise TuiError(
            f"TERM is {os.environ.get('TERM', '') or 'not set'}: no cursor to place; use {instead}"
        )


def show(source: Source, name: str) -> int:
    """Run the monitor until the user quits.

    Raises:
        BaseException: what ended the receiving thread.
    """
    from dpo_tui.app import MonitorApp
    from dpo_tui.signs import detect

    app = MonitorApp(source, name, signs=detect())
    app.run()
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0


def main() -> NoReturn:
    """Entry point of the console script."""
    run_command(cli, "dpo-tui")
