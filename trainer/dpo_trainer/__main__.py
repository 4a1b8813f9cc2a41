"""Entry of one rank: `python -m dpo_trainer RUN_DIR ATTEMPT`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from dpo_telemetry import cli
from dpo_trainer import libraries


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("attempt", type=click.IntRange(min=1))
@click.pass_context
def main(context: click.Context, run_dir: Path, attempt: int) -> None:
    """Train one attempt of a run as one rank."""
    # Importing torch takes seconds, in which a stop has nothing to save and nobody to tell.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.EXIT_FINE))
    libraries.prepare_environment()
    from dpo_trainer import job

    libraries.be_quiet()
    context.exit(job.run(run_dir, attempt))


if __name__ == "__main__":
    cli.run(main, "dpo_trainer")
