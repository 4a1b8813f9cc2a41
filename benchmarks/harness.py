"""What every benchmark shares: its options, the machine it ran on, and where results are kept."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import click

RESULTS = Path(__file__).parent / "results"


class Figure(TypedDict):
    """One figure; its name carries the unit."""

    value: float
    goal: float | None
    peer: dict[str, float]
    """Peers that were measured in the same run, by name."""


Row = dict[str, str | int | float]
"""One line of a table, by column."""


@dataclass
class Measured:
    """Figures, and the tables that they were taken from, by name."""

    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)


Measure = Callable[[bool], dict[str, Figure] | Measured]
Page = Callable[[dict[str, Any]], str]


def main(benchmark: str, measure: Measure, packages: Iterable[str], *, page: Page | None = None) -> None:
    """Run one benchmark as a command line.

    `measure` takes whether to be quick. Of `packages` those that are installed are recorded with
    their versions; the others are named as left out. `page` writes a page of the docs from what is
    recorded.
    """

    @click.command(help=f"Measure {benchmark.replace('_', ' ')}.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option("--quick", is_flag=True, help="Coarser and quicker.")
    @click.option("--record", is_flag=True, help=f"Also write benchmarks/results/{benchmark}.json.")
    @click.option("--page", "as_page", is_flag=True, hidden=page is None, help="Print the page of the docs.")
    def command(as_json: bool, quick: bool, record: bool, as_page: bool) -> None:
        if as_page and page:
            click.echo(page(recorded(benchmark)), nl=False)
            return
        versions, missing = _versions(packages)
        found = measure(quick)
        measured = found if isinstance(found, Measured) else Measured(found)
        result: dict[str, Any] = {
            "benchmark": benchmark,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions,
            "figures": measured.figures,
        }
        if measured.tables:
            result["tables"] = measured.tables
        if record:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{benchmark}.json").write_text(json.dumps(result, indent=2) + "\n")
        if missing:
            click.echo(f"not installed, so left out: {', '.join(missing)}", err=True)
        shown = [*(_rows(name, rows) for name, rows in measured.tables.items()), _figures(measured.figures)]
        click.echo(json.dumps(result) if as_json else "\n\n".join(shown))

    command()


def recorded(benchmark: str) -> dict[str, Any]:
    """The result that was recorded last."""
    result: dict[str, Any] = json.loads((RESULTS / f"{benchmark}.json").read_bytes())
    return result


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {"cpus": os.cpu_count(), "cpu": _cpu_name(), "python": platform.python_version()}


def _versions(packages: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    versions, missing = {}, []
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            missing.append(package)
    return versions, missing


def _rows(name: str, rows: list[Row]) -> str:
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join([name, *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)])


def _figures(figures: dict[str, Figure]) -> str:
    lines = []
    for name, figure in figures.items():
        goal = "" if figure["goal"] is None else f" (goal {figure['goal']:g})"
        peers = ", ".join(f"{peer} {value:g}" for peer, value in figure["peer"].items()) or "none measured"
        lines.append(f"{name}: {figure['value']:g}{goal}; peers: {peers}")
    return "\n".join(lines)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
