"""The memory plan against published measurements: one row of a CSV file, one plan."""

from __future__ import annotations

import csv
import json
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from dpo_profiles.plan import calibration
from dpo_profiles.plan.calibration import Kernels
from dpo_profiles.plan.find import find_architecture
from dpo_profiles.plan.phases import Estimate, estimate
from dpo_profiles.plan.sharding import Sharding
from dpo_profiles.plan.workload import Workload
from dpo_profiles.schema import Backend
from harness import RESULTS, Figure, Row, machine, recorded
from plan_page import page

GIB = 1 << 30
POINTS = Path(__file__).parent / "data" / "vram_points.csv"
"""Published measurements, each row with its source."""
BACKENDS: dict[str, Backend] = {
    "single": "single",
    "ddp": "ddp",
    "fsdp1": "fsdp",
    "fsdp": "fsdp",
    "fsdp2": "fsdp2",
    "zero3": "deepspeed-zero3",
}
CARD_BYTES = {"A100-80GB": 81_251 << 20}
"""What torch can have of the card."""
KINDS = ("resident", "allocated", "reserved", "nvml")
GOALS = {
    "resident_mape": 1.0,
    "allocated_mape": 3.0,
    "allocated_max": 8.0,
    "nvml_coverage": 95.0,
    "nvml_width_gib": 12.0,
}
COLUMNS = (
    "id", "model", "method", "quant", "quant_storage", "lora_r", "targets", "sequences", "seq_len", "micro_batch",
    "grad_ckpt", "optimizer", "loss", "backend", "world_size", "offload", "gpu", "kind", "gib", "source", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One measurement and its plan, in GiB; `low` and `high` of what is an interval."""

    id: str
    model: str
    kind: str
    kernels: Kernels
    measured: float
    plan: float
    low: float
    high: float

    @property
    def error_percent(self) -> float:
        """Of the plan, relative to what was measured."""
        return 100 * (self.plan / self.measured - 1)

    @property
    def inside(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.low <= self.measured <= self.high


def workload_of(row: dict[str, str]) -> Workload:
    """The job that one row describes.

    Notes name the kernels: `framework_config=...` of fms-acceleration. Under FSDP1 its quantised runs keep
    adapters whole on each rank in bfloat16; `baseline-peft-bnb` computes in float32 between layers.

    Raises:
        click.UsageError: a backend that is not planned.
        ProfileError: an unknown model, or a target that it lacks.
    """
    named = re.search(r"framework_config=([\w-]+)", row["notes"])
    framework = named[1] if named else ""
    backend = BACKENDS.get(row["backend"])
    if backend is None:
        raise click.UsageError(
            f"{row['id']}: backend: {row['backend']!r} is not planned; known are {', '.join(BACKENDS)}"
        )
    quantized = row["quant"].startswith("nf4")
    replicated = quantized and backend == "fsdp" and framework.startswith("accelerated-peft")
    full = row["method"] == "full"
    low = full or replicated or row["optimizer"] == "adamw-bf16-states"
    return Workload(
        name=row["id"],
        model=find_architecture(row["model"], row["id"]),
        quantized=quantized,
        double_quantization=row["quant"].endswith("dq"),
        storage_bytes={"bf16": 2, "bfloat16": 2, "fp32": 4, "float32": 4}.get(row["quant_storage"], 1),
        full=full,
        targets=() if full else tuple(row["targets"].split()),
        r=int(row["lora_r"] or 1),
        adapter_bytes=2 if low else 4,
        moment_bytes=2 if low else 4,
        replicated_adapters=replicated,
        sequences=int(row["sequences"]),
        length_tokens=int(row["seq_len"]),
        micro_batch=int(row["micro_batch"]),
        checkpointing=row["grad_ckpt"] == "true",
        checkpoint_bytes=4 if framework == "baseline-peft-bnb" and backend == "single" else 2,
        kernels=_kernels(row, framework),
        sharding=Sharding(backend=backend, world_size=int(row["world_size"])),
        offload="cpu-params" if row["offload"] == "cpu-params" else "none",
        accumulates=False,
        gradients_stay=backend == "fsdp",
        gpu="A100" if row["gpu"].startswith("A100") else row["gpu"],
    )


def _kernels(row: dict[str, str], framework: str) -> Kernels:
    if row["loss"] == "plain":
        return "plain"
    if "liger" in framework:
        return "fused_head"
    return "fused_early" if row["source"].endswith("a100_80gb.csv") else "fused_later"


def point(row: dict[str, str]) -> Point:
    """One row's plan beside its measurement."""
    workload = workload_of(row)
    found = estimate(workload)
    peak, kind = found.peak_allocated, row["kind"]
    if kind not in KINDS:
        raise click.UsageError(f"{row['id']}: kind: {kind!r} is none of {', '.join(KINDS)}")
    low, high = {
        "nvml": _within_card(found, CARD_BYTES.get(row["gpu"])),
        "reserved": (peak + found.gap.cache.low, peak + found.gap.cache.high),
        "resident": (found.resident, found.resident),
        "allocated": (peak, peak),
    }[kind]
    return Point(
        id=row["id"],
        model=row["model"].rpartition("/")[2],
        kind=kind,
        kernels=workload.kernels,
        measured=float(row["gib"]),
        plan=(low + high) / 2 / GIB,
        low=low / GIB,
        high=high / GIB,
    )


def _within_card(found: Estimate, card: int | None) -> tuple[int, int]:
    """NVML's interval on a card of `card` bytes that the run fitted on.

    Near the end of the card the allocator gives its cache back before it fails, so no cache is sure to be seen.
    """
    low, high = found.nvml.low, found.nvml.high
    if card is None or high <= card:
        return low, high
    return min(low, card, low - found.gap.cache.low), card


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a file with the columns of vram_points.csv.

    Raises:
        click.UsageError: unreadable, or a column is missing.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise click.UsageError(f"{path}: {error}; give a CSV file") from None
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise click.UsageError(
            f"{path}: lacks the columns {', '.join(missing)}; give what vram_points.csv has"
        )
    return rows


def figures(points: list[Point]) -> dict[str, Figure]:
    """The five figures, percent and GiB; those that no row speaks of are left out."""

    def errors(kind: str) -> list[float]:
        return [abs(point.error_percent) for point in points if point.kind == kind]

    values: dict[str, float] = {}
    if errors("resident"):
        values["resident_mape"] = statistics.fmean(errors("resident"))
    if errors("allocated"):
        values["allocated_mape"] = statistics.fmean(errors("allocated"))
        values["allocated_max"] = max(errors("allocated"))
    shown = [point for point in points if point.kind == "nvml"]
    if shown:
        values["nvml_coverage"] = 100 * statistics.fmean(point.inside for point in shown)
        values["nvml_width_gib"] = statistics.median(point.high - point.low for point in shown)
    return {name: Figure(value=round(value, 3), goal=GOALS[name], peer={}) for name, value in values.items()}


def leave_one_out(rows: list[dict[str, str]]) -> list[Row]:
    """Each model planned with kernel figures that were fitted on the other models only."""
    table: list[Row] = []
    models = sorted({row["model"] for row in rows if row["kind"] == "allocated"})
    for model in models:
        rest = [row for row in rows if row["model"] != model and row["kind"] == "allocated"]
        own = [row for row in rows if row["model"] == model]
        figures_of, fitted_names = _fit(rest)
        with _using(figures_of):
            points = [point(row) for row in own]
        used = {found.kernels for found in points if found.kind == "allocated"}
        found = {name: figure["value"] for name, figure in figures(points).items()}
        table.append(
            {
                "left_out": model.rpartition("/")[2],
                "rows": len(points),
                **{name: found.get(name, "") for name in GOALS},
                "fitted_on_others": ", ".join(sorted(used & fitted_names)) or "none",
                "taken_as_shipped": ", ".join(sorted(used - fitted_names)) or "none",
            }
        )
    return table


def _fit(rows: list[dict[str, str]]) -> tuple[dict[Kernels, calibration.KernelFigures], set[Kernels]]:
    """Rows of a layer and bytes of a logit for each set of kernels that the rows have, by least mean error."""
    figures_of = dict(calibration.KERNELS)
    fitted: set[Kernels] = set()
    for kernels, start in calibration.KERNELS.items():
        own = [row for row in rows if workload_of(row).kernels == kernels]
        if len(own) < 4:
            continue
        fitted.add(kernels)
        grid = [
            msgspec.structs.replace(start, layer_rows=quarter / 4, logit_bytes=float(each))
            for quarter in range(0, 49, 3)
            for each in (range(6, 17, 2) if start.logit_bytes else (0,))
        ]
        figures_of[kernels] = min(grid, key=lambda tried: _mean_error(own, figures_of | {kernels: tried}))
    return figures_of, fitted


def _mean_error(rows: list[dict[str, str]], tried: dict[Kernels, calibration.KernelFigures]) -> float:
    with _using(tried):
        return statistics.fmean(abs(point(row).error_percent) for row in rows)


@contextmanager
def _using(figures_of: dict[Kernels, calibration.KernelFigures]) -> Iterator[None]:
    shipped = dict(calibration.KERNELS)
    calibration.KERNELS.update(figures_of)
    try:
        yield
    finally:
        calibration.KERNELS.update(shipped)


def _row(found: Point) -> Row:
    return {
        "id": found.id,
        "kind": found.kind,
        "plan_gib": round(found.plan, 3),
        "low_gib": round(found.low, 3),
        "high_gib": round(found.high, 3),
        "measured_gib": found.measured,
        "error_percent": round(found.error_percent, 2),
    }


def _text(table: list[Row]) -> str:
    lines = [list(table[0]), *([str(value) for value in row.values()] for row in table)] if table else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


@click.command()
@click.argument("points", type=click.Path(dir_okay=False, path_type=Path), default=POINTS)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quick", is_flag=True, help="Every tenth row.")
@click.option(
    "--record", is_flag=True, help="Also write benchmarks/results/plan_points.json, without the rows."
)
@click.option("--leave-one-out", "held_out", is_flag=True, help="Also fit on all models but one, for each.")
@click.option("--page", "as_page", is_flag=True, help="Print docs/plan.md from what is recorded.")
def command(points: Path, as_json: bool, quick: bool, record: bool, held_out: bool, as_page: bool) -> None:
    """Hold the memory plan against measured POINTS, a CSV file with the columns of vram_points.csv."""
    if as_page:
        click.echo(page(recorded("plan_points")), nl=False)
        return
    rows = read(points)[:: 10 if quick else 1]
    found = [point(row) for row in rows]
    result: dict[str, Any] = {
        "benchmark": "plan_points",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {},
        "figures": figures(found),
    }
    tables = {"points": [_row(one) for one in found]}
    if held_out or record:
        tables["leave_one_out"] = leave_one_out(rows)
    if record:
        RESULTS.mkdir(exist_ok=True)
        kept = {name: table for name, table in tables.items() if name != "points"}
        written = result | {"tables": kept}
        (RESULTS / "plan_points.json").write_text(json.dumps(written, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(result | {"tables": tables}))
        return
    for table in tables.values():
        click.echo(_text(table) + "\n")
    for name, figure in result["figures"].items():
        click.echo(f"{name}: {figure['value']:g} (goal {figure['goal']:g})")


if __name__ == "__main__":
    command()
