"""`dpo-tui`: watch a live run, look at a finished one, diagnose a log."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from dpo_telemetry.cli import run as run_command
from dpo_telemetry.events import SEVERITIES, Severity
from dpo_tui.errors import TuiError

if TYPE_CHECKING:
    from dpo_telemetry.reader.source import Source
    from dpo_telemetry.rundir.layout import RunDirectory
    from dpo_tui.control import Control
    from dpo_tui.headless.command import Form
    from dpo_tui.runlist import RunList

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
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@RUNS_DIR
@click.option("--plain", is_flag=True, help="Print lines as they come, then a summary; needs no terminal.")
def attach(runs: tuple[str, ...], runs_dir: str | None, plain: bool) -> int:
    """Watch RUN live: through its keeper, or from its directory when it has none.

    RUN is a run directory, its name or a unique prefix; left out, it is the only live run, else
    the newest. Several RUNs, or none where several are live, open a list to choose from. Leaving
    the monitor leaves the run alone. With --plain the exit code is 0 when the run ended well and 1
    otherwise.

    \b
    Examples:
      dpo-tui attach
      dpo-tui attach runs/20261124-0312-demo
      dpo-tui attach runs/*
      dpo-tui attach --plain 20261124 | tee demo.log
    """
    from dpo_telemetry.rundir.find import find_run, runs_directory
    from dpo_telemetry.rundir.live import live_runs
    from dpo_tui.control import LocalControl
    from dpo_tui.runlist import RunList
    from dpo_tui.sources import open_run

    folder = runs_directory(runs_dir)
    several = len(runs) > 1 or (not runs and len(live_runs()) > 1)
    if plain and len(runs) > 1:
        raise click.UsageError("--plain follows one run; name one RUN.")
    if not plain:
        require_terminal("attach --plain")
        if several:
            return show(None, runs=RunList(folder, [named_run(text, folder) for text in runs]))
    found = find_run(runs[0] if runs else None, folder, live_only=several)
    source = open_run(found)
    if plain:
        from dpo_tui.follow import follow

        return follow(found, source)
    return show(source, found.name, control=LocalControl(found), runs=RunList(folder))


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

    PATH is a run directory, its name or a unique prefix, or anybody's log, found out by its content
    (a trainer_state.json or a checkpoint folder, raw output, JSON lines, CSV, TensorBoard's event
    files, a notebook; also compressed). With --headless it may also be - for standard input, and
    there may be several; the exit code is 0 for clean logs, 1 for alerts, 2 for what cannot be read.

    \b
    Examples:
      dpo-tui replay runs/20261124-0312-demo
      dpo-tui replay trainer_state.json
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
    from dpo_telemetry.foreign.source import STANDARD_INPUT
    from dpo_telemetry.reader.source import DirectorySource
    from dpo_telemetry.rundir.find import runs_directory
    from dpo_telemetry.rundir.layout import RunDirectory
    from dpo_tui.logsource import LogSource
    from dpo_tui.paths import path_of
    from dpo_tui.runlist import RunList

    path, runs = path_of(paths[0], runs_dir), RunList(runs_directory(runs_dir))
    if path == STANDARD_INPUT:
        raise click.UsageError("The window takes its keys from standard input; - goes with --headless.")
    if not (path / "run.json").exists():
        if not path.exists():
            raise TuiError(f"{path}: no such file or run")
        return show(LogSource(path), path.name, runs=runs)
    run = RunDirectory(path.absolute())
    run.info()
    return show(DirectorySource(run), run.name, runs=runs)


def named_run(text: str, runs_dir: Path) -> RunDirectory:
    """The run that `text` means; a damaged one is still one of several.

    Raises:
        TelemetryError: no such run, or several that fit.
    """
    from dpo_telemetry.errors import TelemetryError
    from dpo_telemetry.rundir.find import find_run
    from dpo_telemetry.rundir.layout import RunDirectory

    try:
        return find_run(text, runs_dir)
    except TelemetryError:
        run = RunDirectory(Path(os.path.abspath(text)))
        if run.run_file.exists():
            return run
        raise


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


def show(
    source: Source | None, name: str = "", *, control: Control | None = None, runs: RunList | None = None
) -> int:
    """Run the monitor until the user quits; without a source, from the list of runs.

    Raises:
        BaseException: what ended the receiving thread.
    """
    from dpo_tui.app import MonitorApp
    from dpo_tui.settings import settings_file
    from dpo_tui.signs import detect

    app = MonitorApp(source, name, control=control, runs=runs, signs=detect(), settings_file=settings_file())
    app.run()
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0


def main() -> NoReturn:
    """Entry point of the console script."""
    run_command(cli, "dpo-tui")
