"""What every benchmark shares: its options, the machine it ran on, and where results are kept."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
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


Measure = Callable[[bool], dict[str, Figure]]


def main(benchmark: str, measure: Measure, packages: Iterable[str]) -> None:
    """Run one benchmark as a command line.

    `measure` takes whether to be quick. Of `packages` those that are installed are recorded with
    their versions; the others are named as left out.
    """

    @click.command(help=f"Measure {benchmark.replace('_', ' ')}.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option("--quick", is_flag=True, help="Coarser, under a minute.")
    @click.option("--record", is_flag=True, help=f"Also write benchmarks/results/{benchmark}.json.")
    def command(as_json: bool, quick: bool, record: bool) -> None:
        versions, missing = _versions(packages)
        result = {
            "benchmark": benchmark,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions,
            "figures": measure(quick),
        }
        if record:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{benchmark}.json").write_text(json.dumps(result, indent=2) + "\n")
        if missing:
            click.echo(f"not installed, so left out: {', '.join(missing)}", err=True)
        click.echo(json.dumps(result) if as_json else _table(result["figures"]))

    command()


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


def _table(figures: Any) -> str:
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
