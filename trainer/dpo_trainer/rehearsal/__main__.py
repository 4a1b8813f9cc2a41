"""Prepare a rehearsal: `python -m dpo_trainer.rehearsal PROFILE.toml --into DIR --json`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import click

from dpo_profiles.load import parse_resolved
from dpo_profiles.schema import Profile
from dpo_telemetry import cli
from dpo_trainer import libraries
from dpo_trainer.errors import TrainerError


@click.command()
@click.argument("profile_file", metavar="PROFILE.toml", type=click.Path(path_type=Path))
@click.option("--into", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Where to write.")
@click.option("--ranks", type=click.IntRange(min=1), help="Ranks to rehearse with; the profile's, left out.")
@click.option("--layers", type=click.IntRange(min=1), help="Decoder layers; 4 or one a rank, left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(profile_file: Path, into: Path, ranks: int | None, layers: int | None, as_json: bool) -> None:
    """Write a small model, pairs and an adapter in the shape of a resolved profile's."""
    profile = _read_profile(profile_file)
    libraries.prepare_environment()
    # Nothing here needs a GPU, and DeepSpeed tells at length when it looks for one and finds none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    # Libraries that write to stdout would spoil the one object there.
    with contextlib.redirect_stdout(sys.stderr), progress as bar:
        task = bar.add_task("loading the libraries", total=None)
        from dpo_trainer.rehearsal.prepare import prepare

        libraries.be_quiet()
        ranks = ranks or profile.engine.world_size
        prepared = prepare(
            profile,
            into,
            ranks,
            layers,
            lambda done, total, message: bar.update(task, completed=done, total=total, description=message),
        )
    answer = prepared.as_dict()
    if as_json:
        click.echo(json.dumps(answer))
        return
    for name in ("model", "data", "adapter"):
        if answer[name]:
            click.echo(f"{name:<8} {answer[name]}")
    for note in prepared.notes:
        click.echo(f"note     {note}")


def _read_profile(file: Path) -> Profile:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainerError(f"{file}: cannot be read: {error.strerror}; give a resolved profile") from error
    except UnicodeDecodeError as error:
        raise TrainerError(f"{file}: is no text; give a resolved profile") from error
    return parse_resolved(text, str(file))


if __name__ == "__main__":
    cli.run(main, "dpo_trainer.rehearsal")
