"""`dpo-daemon plan RUN`: the newest attempt's plan beside what its ranks measured."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table

from dpo_daemon.errors import DaemonError
from dpo_telemetry import components
from dpo_telemetry.budget import Held, RankBudget
from dpo_telemetry.figures import size
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.text import printable


class Comparison(msgspec.Struct, frozen=True):
    """One attempt of a run."""

    run: str
    attempt: int
    ranks: list[RankBudget]


def compare(run: RunDirectory) -> Comparison:
    """Hold the newest attempt's plan against its ranks.

    Raises:
        DaemonError: the run has no attempt, no plan, or no rank has measured anything.
        TelemetryError: this is no run directory.
    """
    attempt = read_run(run).attempt
    if attempt is None:
        raise DaemonError(f"{run.path}: holds no attempt, so nothing was planned")
    folder = run.attempt(attempt.number)
    if not attempt.budget.planned:
        raise DaemonError(
            f"{folder.plan_file}: holds no plan that can be read, as where the model's architecture is not known"
        )
    if not (ranks := attempt.budget.ranks()):
        raise DaemonError(f"{folder.path}: no rank has measured its memory; wait until it has loaded")
    return Comparison(run.name, attempt.number, ranks)


def print_comparison(comparison: Comparison) -> None:
    """A table for all ranks that measured the same, one under the other."""
    console = Console()
    for ranks in _alike(comparison.ranks):
        numbers = ", ".join(str(held.rank) for held in ranks)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(f"rank{'s' if len(ranks) > 1 else ''} {numbers} of {printable(comparison.run)}")
        for title in ("planned", "measured", "difference"):
            table.add_column(title, justify="right")
        first = ranks[0]
        for name in components.ALL:
            if name in first.components:
                _add(table, name, first.components[name])
        for phase, held in first.peaks.items():
            _add(table, f"peak allocated, {phase}", held)
        if first.nvml is not None:
            _add(table, "NVML, this process", first.nvml)
        console.print(table)


def _alike(ranks: list[RankBudget]) -> list[list[RankBudget]]:
    """Ranks with the same figures, together."""
    groups: dict[bytes, list[RankBudget]] = {}
    for held in ranks:
        groups.setdefault(msgspec.json.encode(msgspec.structs.replace(held, rank=0)), []).append(held)
    return list(groups.values())


def _add(table: Table, name: str, held: Held) -> None:
    planned = size(held.planned_bytes)
    if held.planned_low_bytes != held.planned_bytes:
        planned = f"{size(held.planned_low_bytes)} to {planned}"
    share = f" ({held.difference_bytes / held.planned_bytes:+.1%})" if held.planned_bytes else ""
    sign = "-" if held.difference_bytes < 0 else "+"
    table.add_row(
        name, planned, size(held.measured_bytes), f"{sign}{size(abs(held.difference_bytes))}{share}"
    )
