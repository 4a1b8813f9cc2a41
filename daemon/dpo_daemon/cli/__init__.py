"""`dpo-daemon`: start, stop and look at runs."""

from __future__ import annotations

import click

from dpo_daemon.cli.lazy import LazyGroup
from dpo_telemetry.cli import run

EPILOG = """\b
Examples:
  dpo-daemon start --profile demo          train a small model, right here
  dpo-daemon logs -f                       follow its output
  dpo-daemon status                        how it stands
  dpo-daemon stop                          save and end it

\b
Exit codes: 0 fine, 1 bad news, 2 the question was wrong, 70 a bug of ours, 130 interrupted.
RUN is a run directory, its name, or a unique prefix of it; left out, it is the only live run,
else the newest."""

COMMANDS = {
    "start": "Start a run.",
    "stop": "Save a run and end it.",
    "status": "Show how a run stands.",
    "list": "List runs, live ones from anywhere.",
    "logs": "Print the raw output of a rank.",
    "keep": "Serve a run whose keeper is gone.",
    "rehearse": "Rehearse a profile with a small model.",
    "plan": "Show what a profile should cost in memory.",
    "profiles": "List the shipped profiles, or show one.",
}
"""Command to what it does; its code is in the module of this package that has its name."""


@click.group(
    cls=LazyGroup,
    commands_help=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="dpo-deck", prog_name="dpo-daemon")
def daemon() -> None:
    """Start preference-tuning runs, keep them, and end them without loss."""


def main() -> None:
    """The console script."""
    run(daemon, "dpo-daemon")
