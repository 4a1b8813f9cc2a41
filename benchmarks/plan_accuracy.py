"""The memory plan against what runs measure here, on whatever GPUs there are.

    python benchmarks/plan_accuracy.py [--json] [--quick] [--record]

Each row is a run as users start it: `dpo-daemon start`, two updates on a model of random weights, every sequence
as long as the profile allows; then `dpo-daemon plan RUN --json`. One GPU trains alone, several also under ZeRO-3
and FSDP2. Without a GPU two ranks on the CPU hold their tensors against the plan, and there are no peaks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from dpo_daemon.errors import DaemonError
from dpo_daemon.plans.cards import with_card
from dpo_daemon.preflight import gpu_count
from dpo_profiles.load import load_profile
from dpo_profiles.plan.fit_engines import USUAL, with_backend
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Backend, Data, Eval, Profile, Save, Train
from dpo_telemetry.components import ACTIVATIONS, ADAPTERS, GRADIENTS, OPTIMIZER_STATES, POLICY_WEIGHTS
from harness import Figure, Measured, Row, main
from random_model import make_model

STANDING = (POLICY_WEIGHTS, ADAPTERS, GRADIENTS, OPTIMIZER_STATES)
GOALS = {
    "standing_error_max": 1.0, "allocated_error_mean": 3.0, "allocated_error_max": 8.0, "nvml_coverage": 95.0,
}  # fmt: skip
RANKS_ON_A_CPU = 2
PAIRS = 64
TIMEOUT_S = 900.0


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A model and a batch."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    length_tokens: int
    micro_batch_pairs: int = 1
    checkpointing: bool = True

    @property
    def config(self) -> dict[str, int]:
        """Fields of the model's config."""
        batch = ("name", "length_tokens", "micro_batch_pairs", "checkpointing")
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name not in batch}


def _shape(name: str, widths: tuple[int, int, int, int, int, int], length_tokens: int, **more: Any) -> Shape:
    hidden, inner, layers, heads, keys, words = widths
    return Shape(
        name=name, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, vocab_size=words, length_tokens=length_tokens, **more,
    )  # fmt: skip


# Widths of Qwen2.5 and Llama-3, with fewer layers where the whole would only take longer.
ON_A_GPU = (
    _shape("1.5B", (1536, 8960, 28, 12, 2, 151_936), 1024),
    _shape("1.5B, 4 pairs", (1536, 8960, 28, 12, 2, 151_936), 512, micro_batch_pairs=4),
    _shape("1.5B, no checkpointing", (1536, 8960, 28, 12, 2, 151_936), 512, checkpointing=False),
    _shape("8B, 8 layers", (4096, 14_336, 8, 32, 8, 128_256), 2048),
    _shape("72B, 2 layers", (8192, 29_568, 2, 64, 8, 152_064), 2048),
)
ON_A_CPU = (_shape("tiny", (256, 512, 2, 4, 2, 1024), 64),)


def measure(quick: bool) -> Measured:
    """Each shape under each engine."""
    gpus = gpu_count()
    if not gpus:
        click.echo("no NVIDIA GPU here: only what ranks hold on a CPU is compared, and no peak", err=True)
    shapes = ON_A_GPU if gpus else ON_A_CPU
    engines: dict[Backend, int] = {"single": 1}
    if gpus != 1:
        engines |= dict.fromkeys(USUAL, gpus or RANKS_ON_A_CPU)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="plan-accuracy-") as scratch:
        for shape in shapes[:2] if quick else shapes:
            folder = Path(scratch) / str(len(rows))
            folder.mkdir()
            model = make_model(folder / "model", **shape.config)
            for backend, ranks in engines.items():
                click.echo(f"{shape.name} under {backend}", err=True)
                rows += compared(
                    _profile(shape, backend, ranks, model, on_gpu=bool(gpus)), folder, shape.name
                )
    return Measured(figures(rows), {"ranks": rows})


def compared(profile: Profile, folder: Path, name: str) -> list[Row]:
    """A row a rank of a run, in bytes; what was not measured is left empty."""
    file = folder / f"{profile.name}.toml"
    file.write_text(to_toml(profile))
    runs = ("--runs-dir", str(folder / "runs"))
    # The random texts are longer than any sequence, so that each is cut to the same length.
    started = _daemon("start", "--profile", str(file), *runs, "--force", "truncation", "--force", "plan",
                      "--foreground", "--json")  # fmt: skip
    answer = _daemon("plan", started["name"], *runs, "--json")
    return [_row(name, profile.engine.backend, held) for held in answer["ranks"]]


def figures(rows: list[Row]) -> dict[str, Figure]:
    """Errors in percent of what was measured; figures of which there is no measurement are left out."""
    found = {"standing_error_max": max(abs(_error(row, "standing")) for row in rows)}
    peaks = [abs(_error(row, "peak")) for row in rows if row["peak_measured"] != ""]
    if peaks:
        found |= {"allocated_error_mean": sum(peaks) / len(peaks), "allocated_error_max": max(peaks)}
    cards = [row["nvml_difference"] == 0 for row in rows if row["nvml_difference"] != ""]
    if cards:
        found["nvml_coverage"] = 100 * sum(cards) / len(cards)
    return {name: Figure(value=round(value, 3), goal=GOALS[name], peer={}) for name, value in found.items()}


def _row(name: str, backend: str, held: dict[str, Any]) -> Row:
    parts, peak, nvml = held["components"], held["peaks"].get("train"), held["nvml"]
    standing = [parts[component] for component in STANDING if component in parts]
    return {
        "shape": name,
        "backend": backend,
        "rank": held["rank"],
        "standing_planned": sum(one["planned_bytes"] for one in standing),
        "standing_measured": sum(one["measured_bytes"] for one in standing),
        "activations_planned": parts[ACTIVATIONS]["planned_bytes"] if ACTIVATIONS in parts else "",
        "activations_measured": parts[ACTIVATIONS]["measured_bytes"] if ACTIVATIONS in parts else "",
        "peak_planned": peak["planned_bytes"] if peak else "",
        "peak_measured": peak["measured_bytes"] if peak else "",
        "nvml_low": nvml["planned_low_bytes"] if nvml else "",
        "nvml_high": nvml["planned_bytes"] if nvml else "",
        "nvml_measured": nvml["measured_bytes"] if nvml else "",
        "nvml_difference": nvml["difference_bytes"] if nvml else "",
    }


def _error(row: Row, what: str) -> float:
    return 100 * (float(row[f"{what}_planned"]) / float(row[f"{what}_measured"]) - 1)


def _profile(shape: Shape, backend: Backend, ranks: int, model: Path, *, on_gpu: bool) -> Profile:
    """The 72B profile on another model, under another engine."""
    profile = with_backend(load_profile("zero3"), backend, 1, ranks, USUAL.get(backend, ""))
    replace = msgspec.structs.replace
    profile = replace(
        profile,
        name=f"{backend}-{shape.length_tokens}-{shape.micro_batch_pairs}",
        model=replace(profile.model, base=str(model), revision="", pad_token="", compute_dtype="bfloat16"),
        adapter=replace(profile.adapter, path=""),
        data=Data(name=str(_pairs(model.parent, shape.length_tokens)), max_length_tokens=shape.length_tokens,
                  over_long="truncate", heldout_pairs=2 * ranks),
        train=Train(max_steps=2, micro_batch_pairs=shape.micro_batch_pairs, gradient_accumulation_steps=2,
                    gradient_checkpointing=shape.checkpointing),
        eval=Eval(every_steps=0, micro_batch_pairs=shape.micro_batch_pairs),
        save=Save(every_steps=0),
        hardware=replace(profile.hardware, gpu="", capacity_bytes=0),
    )  # fmt: skip
    return with_card(profile, "here")[0] if on_gpu else profile


def _pairs(folder: Path, length_tokens: int) -> Path:
    """Pairs of which no two are the same, each longer than a sequence."""
    file = folder / f"pairs-{length_tokens}.jsonl"
    rows = [
        {
            "prompt": f"question {number}",
            "chosen": f"yes {number} " + "good word " * (length_tokens // 5),
            "rejected": f"no {number} " + "bad word " * (length_tokens // 5),
        }
        for number in range(PAIRS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _daemon(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "dpo_daemon", *arguments],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise DaemonError(f"dpo-daemon {arguments[0]}: {(done.stderr.strip() or 'no word').splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    packages = (
        "torch",
        "transformers",
        "trl",
        "peft",
        "bitsandbytes",
        "deepspeed",
        "accelerate",
        "nvidia-ml-py",
    )
    main("plan_accuracy", measure, packages)
