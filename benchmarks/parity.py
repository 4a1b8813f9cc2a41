"""The same training under each engine: how far losses, margins and final adapters are apart.

    python benchmarks/parity.py [--json] [--quick] [--record]
    python benchmarks/parity.py --page > docs/parity.md

Each run goes through the launcher and the trainer of users' runs, on the GPUs where there are two, else
on a CPU. All start from the same adapter on the same pairs, a step of as many pairs whatever the ranks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click
import msgspec
import psutil

import harness
import parity_page
from dpo_daemon import launch
from dpo_profiles.load import load_profile
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Data, Engine, Eval, Optimizer, Profile, Save, Schedule, Train
from dpo_telemetry import events
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import Attempt
from parity_figures import Tensors, Trained, figures, table

BACKENDS: tuple[str, ...] = ("single", "ddp", "deepspeed-zero3", "fsdp2")
BACKENDS_BF16: tuple[str, ...] = ("single", "deepspeed-zero3", "fsdp2")
"""DDP computes as `single` does."""
RANKS = 2
STEPS, QUICK_STEPS = 20, 8
BF16_STEPS = 8
"""Most CPUs have no arithmetic for bfloat16, and a step takes several times as long."""
PAIRS_A_STEP, MICRO_BATCH_PAIRS = 8, 2
TRAIN_PAIRS = 40
"""Each is seen four times in 20 steps, so that the loss falls, and does not vanish."""
LEARNING_RATE = 1e-3
SEED = 1234
TOKENS_AT_MOST = 128
TIMEOUT_S = 600
"""For one run; ranks that wait for each other for ever are an error, and not a long benchmark."""


def measure(quick: bool) -> harness.Measured:
    """All engines in float32 and, unless quick, in bfloat16."""
    if _gpus() < RANKS:
        # One GPU for two ranks is none: all engines have to compute on the same kind of device.
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    with tempfile.TemporaryDirectory(prefix="dpo-parity-") as name:
        folder = Path(name)
        base = prepare(folder)
        start = read_adapter(Path(base.adapter.path))
        measured = harness.Measured()
        tables = [("float32", "", BACKENDS, QUICK_STEPS if quick else STEPS)]
        if not quick:
            tables.append(("bfloat16", "_bf16", BACKENDS_BF16, BF16_STEPS))
        for dtype, suffix, backends, steps in tables:
            runs = {}
            for backend in backends:
                profile = for_backend(base, backend, dtype, steps, folder)
                runs[backend] = train(profile, folder)
                click.echo(f"{dtype} {backend}: {runs[backend].wall_s:.0f} s", err=True)
            measured.figures |= figures(runs, start, suffix=suffix)
            measured.tables[dtype] = table(runs, start)
    return measured


def prepare(folder: Path) -> Profile:
    """The 72B profile on a small model with its adapter and pairs, as a rehearsal makes them.

    The hub is left out, so that the model is the same wherever this runs.
    """
    seed = load_profile("zero3")
    data = Data(name="shipped", max_length_tokens=TOKENS_AT_MOST, heldout_fraction=0.0)
    adapter = msgspec.structs.replace(seed.adapter, dropout=0.0)
    train_ = msgspec.structs.replace(seed.train, seed=SEED)
    profile = msgspec.structs.replace(seed, data=data, adapter=adapter, train=train_)
    file = folder / "base.toml"
    file.write_text(to_toml(profile), encoding="utf-8")
    into = folder / "rehearsal"
    command = [sys.executable, "-P", "-m", "dpo_trainer.rehearsal", str(file), "--into", str(into), "--json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--ranks", str(RANKS)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"the small model cannot be made: {done.stderr.strip()}")
    made = json.loads(done.stdout)
    return msgspec.structs.replace(
        profile,
        model=msgspec.structs.replace(profile.model, base=made["model"]),
        adapter=msgspec.structs.replace(adapter, path=made["adapter"]),
        data=msgspec.structs.replace(data, name=made["data"], train_pairs=TRAIN_PAIRS),
    )


def for_backend(base: Profile, backend: str, dtype: str, steps: int, folder: Path) -> Profile:
    """The same job for one engine; `dtype` is that of the base model's arithmetic."""
    ranks = 1 if backend == "single" else RANKS
    accumulation = PAIRS_A_STEP // MICRO_BATCH_PAIRS // ranks
    deepspeed_file = ""
    if backend == "deepspeed-zero3":
        deepspeed_file = str(_deepspeed_file(base, dtype, accumulation, folder))
    return msgspec.structs.replace(
        base,
        name=f"parity-{backend}",
        model=msgspec.structs.replace(base.model, compute_dtype=dtype),
        quantization=msgspec.structs.replace(base.quantization, storage_dtype=dtype),
        train=Train(
            max_steps=steps,
            micro_batch_pairs=MICRO_BATCH_PAIRS,
            gradient_accumulation_steps=accumulation,
            seed=SEED,
        ),
        optimizer=Optimizer(learning_rate=LEARNING_RATE),
        schedule=Schedule(kind="linear", warmup_ratio=0.1),
        eval=Eval(every_steps=0),
        save=Save(every_steps=0),
        engine=msgspec.convert(
            {"backend": backend, "gpus_per_node": ranks, "deepspeed_file": deepspeed_file}, Engine
        ),
    )


def _deepspeed_file(base: Profile, dtype: str, accumulation: int, folder: Path) -> Path:
    """The 72B job's own file, but that it shards the smallest parameter too."""
    config = json.loads(Path(base.engine.deepspeed_file).read_bytes())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    config["train_micro_batch_size_per_gpu"] = MICRO_BATCH_PAIRS
    config["gradient_accumulation_steps"] = accumulation
    config["bf16"]["enabled"] = dtype == "bfloat16"
    file = folder / f"deepspeed-{dtype}.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return file


def train(profile: Profile, folder: Path) -> Trained:
    """Run a profile to its end.

    Raises:
        click.ClickException: it did not end well.
    """
    run = create_run(folder / "runs", profile.name)
    attempt = create_attempt(run, to_toml(profile), b"{}")
    began = time.perf_counter()
    with (folder / f"{run.name}.log").open("w+b") as log:
        process = launch.start(launch.launcher_for(profile, run, attempt), log.fileno())
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise click.ClickException(f"{profile.name}: did not end within {TIMEOUT_S} s") from None
        finally:
            _kill(process)
        wall_s = time.perf_counter() - began
    if code:
        raise click.ClickException(f"{profile.name}: ended with code {code}: {_last_words(attempt)}")
    steps = _steps(attempt)
    return Trained(
        losses=tuple(events.from_number(step.metrics["loss"]) for step in steps),
        margins=tuple(events.from_number(step.metrics["rewards/margins"]) for step in steps),
        adapter=read_adapter(run.adapter_dir),
        wall_s=wall_s,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what still runs; torchrun's ranks are in sessions of their own."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid)
    for member in [*family.children(recursive=True), family]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def read_adapter(folder: Path) -> Tensors:
    """An adapter in PEFT's format, float32 on the CPU."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _steps(attempt: Attempt) -> list[events.Step]:
    lines = attempt.event_file("rank-00000").read_bytes().splitlines()
    return [event for line in lines if isinstance(event := events.decode(line), events.Step)]


def _last_words(attempt: Attempt) -> str:
    """What rank 0 said of its end."""
    lines = attempt.event_file("rank-00000").read_bytes().splitlines()
    ends = [event for line in lines if isinstance(event := events.decode(line), events.Exit)]
    return ends[-1].reason if ends else "rank 0 told nothing of its end"


def _gpus() -> int:
    """GPUs that torch sees; asked in another process, since a look keeps a context on each."""
    question = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-P", "-c", question], capture_output=True, text=True, check=True)
    return int(done.stdout)


if __name__ == "__main__":
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "bitsandbytes")
    harness.main("parity", measure, packages, page=parity_page.page)
