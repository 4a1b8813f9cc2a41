"""Replays logs one after the other and says how it went by the exit code."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from dpo_telemetry.cli import EXIT_BAD_NEWS, EXIT_FINE, EXIT_USAGE, render
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.events import Severity
from dpo_telemetry.foreign.open import ReplayedLog, open_log
from dpo_telemetry.text import printable
from dpo_tui.headless.reports import REPORTS
from dpo_tui.headless.result import Outcome, result_of
from dpo_tui.paths import path_of

if TYPE_CHECKING:
    from dpo_tui.headless.printed import Printed

Form = Literal["text", "json", "junit", "github"]
MANY = 20
"""Logs from which on a bar is drawn."""


def replay_headless(
    paths: Sequence[str], *, form: Form = "text", fail_on: Severity, runs_dir: str | None = None
) -> int:
    """Diagnose each path, or run by its name; returns the worst exit code (2 before 1 before 0).

    One path as text is a page, several are a line each and a summary. With several paths an unreadable
    one is an error line, and the others are still replayed.
    """
    outcomes: list[Outcome] = []
    printed = _printed(len(paths) > 1) if form == "text" else None
    for path in _with_progress(paths):
        outcome, log = _replay(path, fail_on, runs_dir, alone=len(paths) == 1 and form not in REPORTS)
        outcomes.append(outcome)
        if outcome.result is None:
            render(outcome.error)
        if printed is not None:
            printed.add(outcome, log)
    if printed is not None:
        printed.finish()
    elif form == "json":
        results = [outcome.result for outcome in outcomes if outcome.result is not None]
        click.echo(msgspec.json.encode(results[0] if len(paths) == 1 else {"results": results}))
    elif form in REPORTS:
        for line in REPORTS[form](outcomes, fail_on):
            click.echo(line.encode())
    if any(outcome.result is None for outcome in outcomes):
        return EXIT_USAGE
    return EXIT_BAD_NEWS if any(o.result and o.result.verdict == "alerts" for o in outcomes) else EXIT_FINE


def _printed(several: bool) -> Printed:
    # A program that asks for JSON has no use for what draws, and waits for its import.
    from dpo_tui.headless.printed import Printed

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Signs that a terminal's encoding lacks (Latin-1) must not cost the page.
        sys.stdout.reconfigure(errors="replace")
    return Printed(several=several)


def _replay(
    path: str, fail_on: Severity, runs_dir: str | None, *, alone: bool
) -> tuple[Outcome, ReplayedLog | None]:
    """One path; the error of a path that is alone is raised."""
    try:
        with _collector_at_rest():
            log = open_log(path_of(path, runs_dir))
    except TelemetryError as error:
        if alone:
            raise
        return Outcome(printable(path), error=error.format_message()), None
    return Outcome(printable(path), result_of(log, fail_on)), log


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection while inside: rows make no cycles, and looking for some costs a fifth of the reading."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _with_progress(paths: Sequence[str]) -> Iterable[str]:
    """A bar on a terminal where there are many."""
    if len(paths) < MANY or not sys.stderr.isatty():
        return paths
    from rich.console import Console
    from rich.progress import track

    return track(paths, "diagnosing", console=Console(stderr=True), transient=True)
