"""Replays logs one after the other and says how it went by the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console

from dpo_telemetry.cli import EXIT_BAD_NEWS, EXIT_FINE, EXIT_USAGE, render
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.events import Severity
from dpo_telemetry.foreign.open import ReplayedLog, open_log
from dpo_telemetry.rundir.find import find_run, runs_directory
from dpo_tui.headless.page import print_page
from dpo_tui.headless.result import Result, result_of


def replay_headless(
    paths: Sequence[str], *, as_json: bool, fail_on: Severity, runs_dir: str | None = None
) -> int:
    """Diagnose each path, or run by its name; returns the worst exit code (2 before 1 before 0).

    With several paths an unreadable one is an error line, and the others are still replayed.
    """
    opened: list[tuple[Result, ReplayedLog]] = []
    unreadable = False
    for path in paths:
        try:
            log = open_log(_path_of(path, runs_dir))
        except TelemetryError as error:
            if len(paths) == 1:
                raise
            render(error.format_message())
            unreadable = True
            continue
        opened.append((result_of(log, fail_on), log))
    results = [result for result, _ in opened]
    if as_json:
        click.echo(msgspec.json.encode(results[0] if len(paths) == 1 else {"results": results}))
    else:
        console = Console(soft_wrap=False, highlight=False)
        for result, log in opened:
            print_page(console, result, log.series)
    if unreadable:
        return EXIT_USAGE
    return EXIT_BAD_NEWS if any(result.verdict == "alerts" for result in results) else EXIT_FINE


def _path_of(text: str, runs_dir: str | None) -> Path:
    """What is there under this path, else the run of this name."""
    path = Path(text)
    if path.exists() or path.name != text:
        return path
    try:
        return find_run(text, runs_directory(runs_dir)).path
    except TelemetryError:
        # A name with a suffix may as well mean a file, and a run's error would mislead.
        if path.suffix:
            return path
        raise
