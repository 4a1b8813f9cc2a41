"""Get a model: a local folder, the Hugging Face hub, or a package index.

python -m dpo_trainer.model.hub --fetch HuggingFaceTB/SmolLM2-135M-Instruct
"""

from __future__ import annotations

from pathlib import Path

import click

from dpo_trainer.errors import TrainerError
from dpo_trainer.model import package, reach
from dpo_trainer.model.package import Progress
from dpo_trainer.model.snapshot import snapshot

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def get_model(name: str, revision: str = "", progress: Progress = lambda done, total, message: None) -> Path:
    """Folder of the model `name`, fetched when it is not here yet.

    Raises:
        TrainerError: there is no such folder, or nobody who has the model answers, or it cannot be
            written.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.absolute()
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise TrainerError(f"model.base: {name}: there is no such folder; give a folder or a hub id")
    progress(0, 1, f"{'fetching' if reach.hub_answers() else 'looking for'} {name}")
    found = snapshot(name, _FILES, field="model.base", revision=revision)
    return found or _from_package(name, revision, progress)


def _from_package(name: str, revision: str, progress: Progress) -> Path:
    model = package.PACKAGED.get(name)
    if model is None:
        raise TrainerError(
            f"model.base: {name}: the hub does not answer and the model is not in its cache; "
            "check the network, or give a local folder"
        )
    if revision:
        raise TrainerError(
            f"model.revision: {revision}: the hub does not answer, and the package index has no revisions "
            f"of {name}; check the network, or leave it empty"
        )
    progress(0, 1, f"{name}: {package.NOTE}")
    return package.cached(model) or package.fetch(model, progress)


@click.command()
@click.option("--fetch", "name", required=True, metavar="NAME", help="Model to have in the cache.")
@click.option("--revision", default="", help="Revision on the hub.")
def main(name: str, revision: str) -> None:
    """Fetch a model into the cache and print its folder."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def show(done: int, total: int, message: str) -> None:
            bar.update(task, completed=done, total=total, description=message)
            if not console.is_terminal:
                click.echo(message, err=True)

        folder = get_model(name, revision, show)
    click.echo(folder)


if __name__ == "__main__":
    from dpo_telemetry import cli

    cli.run(main, "dpo_trainer.model.hub")
