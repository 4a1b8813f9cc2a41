"""Pictures of the real screens: `python -m dpo_tui.pictures RUN_DIR LOG OUT_DIR`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from dpo_telemetry.cli import run as run_command
from dpo_telemetry.reader.source import DirectorySource, Source
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.app import MonitorApp
from dpo_tui.logsource import LogSource
from dpo_tui.wants import ScreenName

PICTURES: tuple[tuple[ScreenName, tuple[int, int]], ...] = (
    ("overview", (80, 24)),
    ("overview", (120, 40)),
    ("metrics", (120, 40)),
    ("memory", (120, 40)),
    ("alerts", (120, 40)),
)
"""Screen, and columns and rows of the terminal."""
SETTLED_S = 0.6
"""A screen that came to the front is filled by the next snapshot and laid out after it."""


async def picture(path: Path, size: tuple[int, int], screen: ScreenName = "overview") -> str:
    """A screen of a run or a log as SVG, drawn at `size` columns and rows."""
    run = RunDirectory(path.absolute())
    source: Source = DirectorySource(run) if run.run_file.exists() else LogSource(path)
    app = MonitorApp(source, path.name)
    async with app.run_test(size=size) as pilot:
        while app.drawn is None and app.failure is None:
            await asyncio.sleep(0.02)
        if app.failure is not None:
            raise app.failure
        await app.action_show(screen)
        await pilot.pause(SETTLED_S)
        return app.export_screenshot(title=f"dpo-tui replay {path.name}")


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("log", type=click.Path(path_type=Path, exists=True))
@click.argument("out_dir", type=click.Path(path_type=Path))
def main(run_dir: Path, log: Path, out_dir: Path) -> None:
    """Write SCREEN-WIDTHxHEIGHT.svg into OUT_DIR: of the run in RUN_DIR, and the alerts of LOG."""
    RunDirectory(run_dir.absolute()).info()
    out_dir.mkdir(parents=True, exist_ok=True)
    for screen, size in PICTURES:
        file = out_dir / f"{screen}-{size[0]}x{size[1]}.svg"
        shown = log if screen == "alerts" else run_dir
        file.write_text(asyncio.run(picture(shown, size, screen)))
        click.echo(file)


if __name__ == "__main__":
    run_command(main, "dpo_tui.pictures")
