"""What a run's plan said of each rank, beside what the rank measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from dpo_daemon.errors import DaemonError
from dpo_telemetry import components, events
from dpo_telemetry.figures import size
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

_RANK = re.compile(r"rank-(\d+)\.jsonl")


class Held(msgspec.Struct, frozen=True):
    """One component of one rank, in bytes, each at its largest."""

    planned_bytes: int
    measured_bytes: int
    difference_bytes: int
    """Measured minus planned."""


class Comparison(msgspec.Struct, frozen=True):
    """The newest attempt of a run; what was not measured, as a GPU's memory on a CPU, is absent."""

    run: str
    attempt: int
    ranks: dict[int, dict[str, Held]]


def compare(run: RunDirectory) -> Comparison:
    """Hold the plan of the newest attempt against the Memory events of its ranks.

    Raises:
        DaemonError: the run has no attempt, no plan, or no rank has measured anything.
    """
    if not run.attempts():
        raise DaemonError(f"{run.path}: holds no attempt, so nothing was planned")
    attempt = run.attempts()[-1]
    planned = _planned(attempt)
    ranks = {}
    for path in sorted(attempt.events_dir.glob("rank-*.jsonl")):
        match = _RANK.fullmatch(path.name)
        if match and int(match[1]) < len(planned) and (measured := measured_components(path)):
            ranks[int(match[1])] = _held(planned[int(match[1])], measured)
    if not ranks:
        raise DaemonError(f"{attempt.path}: no rank has measured its memory; wait until it has loaded")
    return Comparison(run.name, attempt.number, ranks)


def measured_components(path: Path) -> dict[str, int]:
    """Each component's largest measured bytes in a rank's event file.

    Activations are peak allocated minus resident, cache and fragmentation reserved minus allocated, as
    `dpo_telemetry.components` defines them.
    """
    largest: dict[str, int] = {}
    for line in path.read_bytes().splitlines():
        event = events.decode(line)
        if not isinstance(event, events.Memory):
            continue
        found = dict(event.components)
        if event.peak_allocated_bytes is not None:
            found[components.ACTIVATIONS] = max(
                0, event.peak_allocated_bytes - sum(event.components.values())
            )
        if event.reserved_bytes is not None and event.allocated_bytes is not None:
            found[components.CACHE_FRAGMENTATION] = event.reserved_bytes - event.allocated_bytes
        for name, count in found.items():
            largest[name] = max(largest.get(name, 0), count)
    return largest


def print_comparison(comparison: Comparison) -> None:
    """A table a rank."""
    console = Console()
    for rank, held in comparison.ranks.items():
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(f"rank {rank} of {comparison.run}")
        for title in ("planned", "measured", "difference"):
            table.add_column(title, justify="right")
        for name, one in held.items():
            share = f" ({one.difference_bytes / one.planned_bytes:+.1%})" if one.planned_bytes else ""
            sign = "-" if one.difference_bytes < 0 else "+"
            apart = f"{sign}{size(abs(one.difference_bytes))}{share}"
            table.add_row(name, size(one.planned_bytes), size(one.measured_bytes), apart)
        console.print(table)


def _planned(attempt: Attempt) -> list[dict[str, int]]:
    try:
        ranks = json.loads(attempt.plan_file.read_bytes()).get("per_gpu", [])
        planned = [{str(name): int(count) for name, count in rank["components"].items()} for rank in ranks]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DaemonError(f"{attempt.plan_file}: cannot be read as a plan: {error}") from error
    if not planned:
        raise DaemonError(
            f"{attempt.plan_file}: holds no plan, as where the model's architecture is not known"
        )
    return planned


def _held(planned: dict[str, int], measured: dict[str, int]) -> dict[str, Held]:
    names = [name for name in components.ALL if name in measured]
    return {n: Held(planned.get(n, 0), measured[n], measured[n] - planned.get(n, 0)) for n in names}
