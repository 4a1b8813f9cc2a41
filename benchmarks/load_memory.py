"""Host memory while a model is loaded, and how it grows with the number of ranks.

    python benchmarks/load_memory.py

A model of random weights is loaded by real ranks on this machine's CPU, where the host's memory is
the device's too: shards, gathered layers and all. Each job runs up to the end of its load phase.
What libraries and data take is left out by loading a model of the same structure and hardly any
weights in the same way. The peer is the library's own loader, whole on each rank.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from dpo_profiles.render import to_toml
from dpo_profiles.schema import Adapter, Data, Engine, Model, Profile, Quantization, Train
from dpo_telemetry import events
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from harness import Figure, main
from random_model import make_model, run_python

TINY_WIDTH = 64
TIMEOUT_S = 900.0
GOAL = 0.2
"""Of one model copy for each added rank."""

LOAD_WHOLE = """
import resource, sys, torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
AutoModelForCausalLM.from_pretrained(
    sys.argv[1], dtype=torch.bfloat16, device_map={"": "cpu"},
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_quant_storage=torch.bfloat16,
    ),
)
print(peak() - before)
"""

ZERO3 = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, "overlap_comm": False},
    "bf16": {"enabled": True},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


def measure(quick: bool) -> dict[str, Figure]:
    """Growth of the peak for each added rank, as a fraction of one bfloat16 copy of the model."""
    # As in a large model, no single matrix is much of the whole: half a percent.
    width, layers = (1024, 24) if quick else (1024, 48)
    ranks = (2, 3) if quick else (2, 4)
    with tempfile.TemporaryDirectory(prefix="load-memory-") as scratch:
        folder = Path(scratch)
        big, tiny = _model(folder / "big", width, layers), _model(folder / "tiny", TINY_WIDTH, layers)
        copy_bytes = sum(path.stat().st_size for path in big.glob("*.safetensors"))
        whole = int(run_python(LOAD_WHOLE, str(big))) - int(run_python(LOAD_WHOLE, str(tiny)))
        figures = {}
        for backend, name in (("deepspeed-zero3", "zero3"), ("fsdp2", "fsdp2")):
            few, many = (_total_bytes(folder, backend, count, big, tiny) for count in ranks)
            growth = (many - few) / (ranks[1] - ranks[0]) / copy_bytes
            peer = {"library's loader": whole / copy_bytes}
            figures[f"{name}_growth"] = Figure(value=growth, goal=GOAL, peer=peer)
            figures[f"{name}_peak_{ranks[0]}_ranks"] = Figure(
                value=few / copy_bytes, goal=None, peer={"library's loader": ranks[0] * whole / copy_bytes}
            )
    return figures


def _total_bytes(folder: Path, backend: str, ranks: int, big: Path, tiny: Path) -> int:
    """Bytes that all ranks together take for a model's weights at the peak of loading."""
    return sum(_peaks(folder, backend, ranks, big)) - sum(_peaks(folder, backend, ranks, tiny))


def _peaks(folder: Path, backend: str, ranks: int, model: Path) -> list[int]:
    """Largest resident set of each rank at the end of its load phase, less that at its beginning."""
    run = _start(folder, backend, ranks, model)
    attempt = run.attempt(1)
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nnodes", "1"]
    command += ["--nproc-per-node", str(ranks), "-m", "dpo_trainer", str(run.path), "1"]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            loaded = [_load_bytes(attempt.event_file(f"rank-{rank:05d}")) for rank in range(ranks)]
            if None not in loaded:
                return [value for value in loaded if value is not None]
            if job.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(
                    f"error: the job of {ranks} ranks under {backend} ended before it had loaded"
                )
            time.sleep(0.2)
    finally:
        job.terminate()
        job.wait()


def _load_bytes(file: Path) -> int | None:
    lines = file.read_bytes().splitlines() if file.exists() else []
    found = [event for line in lines if isinstance(event := events.decode(line), events.Memory)]
    if len(found) < 2:
        return None
    assert found[0].rss_bytes is not None
    assert found[1].peak_rss_bytes is not None
    return found[1].peak_rss_bytes - found[0].rss_bytes


def _start(folder: Path, backend: str, ranks: int, model: Path) -> RunDirectory:
    engine_file = ""
    if backend == "deepspeed-zero3":
        engine_file = str(folder / "zero3.json")
        Path(engine_file).write_text(json.dumps(ZERO3))
    profile = Profile(
        name="load",
        model=Model(base=str(model), compute_dtype="bfloat16"),
        quantization=Quantization(storage_dtype="bfloat16"),
        # As small beside the base as a rank of 16 is beside a 72B.
        adapter=Adapter(r=2),
        data=Data(max_length_tokens=2048, heldout_fraction=0.0),
        train=Train(max_steps=1, gradient_accumulation_steps=1),
        engine=Engine(backend=backend, gpus_per_node=ranks, deepspeed_file=engine_file),  # type: ignore[arg-type]
    )
    profile = msgspec.structs.replace(profile, eval=msgspec.structs.replace(profile.eval, every_steps=0))
    run = create_run(folder / "runs", profile.name)
    create_attempt(run, to_toml(profile), b"{}")
    return run


def _model(folder: Path, width: int, layers: int) -> Path:
    heads = width // 64
    return make_model(
        folder, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads,
    )  # fmt: skip


if __name__ == "__main__":
    main("load_memory", measure, ("torch", "transformers", "bitsandbytes", "deepspeed", "accelerate"))
