"""Pictures of the real screen: `python -m dpo_tui.pictures RUN_DIR OUT_DIR`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from dpo_telemetry.cli import run as run_command
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.app import MonitorApp

SIZES = ((80, 24), (120, 40))


async def picture(run: RunDirectory, size: tuple[int, int]) -> str:
    """The overview of a run as SVG, drawn at `size` columns and rows."""
    app = MonitorApp(DirectorySource(run), run.name)
    async with app.run_test(size=size) as pilot:
        while app.drawn is None and app.failure is None:
            await asyncio.sleep(0.02)
        await pilot.pause()
        if app.failure is not None:
            raise app.failure
        return app.export_screenshot(title=f"dpo-tui replay {run.name}")


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("out_dir", type=click.Path(path_type=Path))
def main(run_dir: Path, out_dir: Path) -> None:
    """Write overview-WIDTHxHEIGHT.svg of the run in RUN_DIR into OUT_DIR."""
    run = RunDirectory(run_dir.absolute())
    run.info()
    out_dir.mkdir(parents=True, exist_ok=True)
    for width, height in SIZES:
        file = out_dir / f"overview-{width}x{height}.svg"
        file.write_text(asyncio.run(picture(run, (width, height))))
        click.echo(file)


if __name__ == "__main__":
    run_command(main, "dpo_tui.pictures")
