"""`start --foreground`: the log lines of a run, and how it ended."""

from __future__ import annotations

import signal
import time
from types import FrameType

import click
import msgspec

from dpo_daemon.follow import LogReader, follow, launcher_logs
from dpo_daemon.stopping import ask_to_stop, end_now
from dpo_daemon.summary import Summary, summarise
from dpo_daemon.tables import print_closing
from dpo_telemetry.cli import EXIT_BAD_NEWS, EXIT_INTERRUPTED, render
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

END_NOW_TIMEOUT_S = 60.0


def follow_to_the_end(run: RunDirectory, *, quiet: bool) -> tuple[Summary, int]:
    """Print log lines until the run ends; returns how it stands then, and the exit code for it.

    Ctrl-C or SIGTERM saves and ends the run, a second one ends it at once. With `quiet`, lines go
    to stderr and there is no closing summary.
    """
    attempt = run.attempts()[-1]
    began = time.time()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        interrupted = _print_lines(run, attempt, quiet)
    finally:
        signal.signal(signal.SIGTERM, previous)
    model = read_run(run)
    summary = summarise(run, model, None)
    if not quiet:
        print_closing(run, model, summary, time.time() - began)
    code = exit_code_of(attempt)
    if code:
        output = (launcher_logs(attempt) or [attempt.log_file(0)])[0]
        render(f"{run.name}: {summary.reason or summary.state}; its output is in {output}")
    return summary, EXIT_INTERRUPTED if interrupted else code


def exit_code_of(attempt: Attempt) -> int:
    """The worst exit code of an attempt's hosts; 1 where a signal or nobody ended it."""
    ends = [
        msgspec.json.decode(file.read_bytes(), type=HostExit) for file in attempt.path.glob("exit-*.json")
    ]
    codes = [EXIT_BAD_NEWS if end.code is None or end.signal else end.code for end in ends]
    return max(codes, default=EXIT_BAD_NEWS)


def _print_lines(run: RunDirectory, attempt: Attempt, quiet: bool) -> bool:
    """Whether the run was interrupted."""
    reader = LogReader(attempt.log_file(0))
    interruptions = 0
    while True:
        try:
            for line in follow(reader, attempt):
                click.echo(line, err=quiet)
            return interruptions > 0
        except KeyboardInterrupt:
            interruptions += 1
            _take_interruption(run, attempt, interruptions)


def _take_interruption(run: RunDirectory, attempt: Attempt, count: int) -> None:
    if attempt.ended():
        return
    if count == 1:
        click.echo("saving and ending after this step; Ctrl-C again ends it at once", err=True)
        ask_to_stop(run, attempt)
    else:
        end_now(run, attempt, END_NOW_TIMEOUT_S)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
