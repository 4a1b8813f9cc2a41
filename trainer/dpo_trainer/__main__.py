"""Entry of one rank: `python -m dpo_trainer RUN_DIR ATTEMPT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from dpo_telemetry import cli
from dpo_telemetry.rundir.layout import Attempt, RunDirectory
from dpo_trainer import libraries


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("attempt", type=click.IntRange(min=1))
@click.pass_context
def main(context: click.Context, run_dir: Path, attempt: int) -> None:
    """Train one attempt of a run as one rank."""
    if "WORLD_SIZE" in os.environ:
        run = RunDirectory(run_dir)
        run.info()
        _write_to_own_log(run.attempt(attempt), int(os.environ["RANK"]))
    # Importing torch takes seconds, in which a stop has nothing to save and nobody to tell.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.EXIT_FINE))
    libraries.prepare_environment()
    from dpo_trainer import job

    libraries.be_quiet()
    context.exit(job.run(run_dir, attempt))


def _write_to_own_log(attempt: Attempt, rank: int) -> None:
    """Output to the rank's own file: several ranks in one would tear each other's lines."""
    attempt.logs_dir.mkdir(parents=True, exist_ok=True)
    log = os.open(attempt.log_file(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


if __name__ == "__main__":
    cli.run(main, "dpo_trainer")
