"""Ranks of real engines over gloo, each kind of run made once and read by many tests.

xdist's workers share the runs: whoever comes first makes one, and one set of ranks runs at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

import dpo_profiles
import dpo_telemetry
import dpo_trainer
from dpo_profiles.render import to_toml
from dpo_profiles.schema import (
    Adapter,
    Data,
    Engine,
    Eval,
    Model,
    Optimizer,
    Profile,
    Quantization,
    Save,
    Schedule,
    Train,
)
from dpo_telemetry import events
from dpo_telemetry.events import Event
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory

from ..conftest import byte_tokenizer, preference_rows, write_rows

ROOT = Path(__file__).parents[3]
WORLD = 2
SHARDING = ("deepspeed-zero3", "fsdp2")
ENGINES = ("ddp", *SHARDING)
PAIRS_A_STEP = 4
DEEPSPEED: dict[str, Any] = {
    # A tiny model's parameters are all below DeepSpeed's own threshold, and would stay gathered.
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, "overlap_comm": False},
    "bf16": {"enabled": False},
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
}


@dataclass(frozen=True)
class Ended:
    """A run whose ranks have ended."""

    run: RunDirectory
    codes: list[int]
    """Of the ranks, or of the launcher."""
    facts: list[dict[str, Any]] = field(default_factory=list)
    """Of each rank, as `rank.facts_of` has them."""
    attempt: int = 1

    def events(self, rank: int = 0) -> list[Event]:
        lines = self.run.attempt(self.attempt).event_file(f"rank-{rank:05d}").read_bytes().splitlines()
        return [event for line in lines if (event := events.decode(line)) is not None]

    def of(self, kind: type[Event], rank: int = 0) -> list[Any]:
        return [event for event in self.events(rank) if isinstance(event, kind)]

    def metric(self, name: str) -> list[float]:
        return [events.from_number(step.metrics[name]) for step in self.of(events.Step)]

    def alerts(self) -> list[str]:
        return [alert.code for alert in self.of(events.Alert)]

    def adapter(self) -> Path:
        return self.run.adapter_dir / "adapter_model.safetensors"

    def log(self) -> str:
        """What the ranks wrote, for a failed assertion."""
        logs = sorted(self.run.attempt(self.attempt).logs_dir.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Workshop:
    """Makes runs, and starts their ranks."""

    folder: Path
    """Of all workers."""
    _nursery: subprocess.Popen[str] | None = None

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that the first who asks for it makes."""
        target = self.folder / name
        with _alone(self.folder / f"{name}.lock"):
            if not target.exists():
                staging = self.folder / f"{name}.part"
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir()
                make(staging)
                staging.rename(target)
        return target

    def new_run(self, profile: Profile, plan: bytes = b"{}") -> RunDirectory:
        with _alone(self.folder / "runs.lock"):
            run = create_run(self.folder / "runs", profile.name)
        create_attempt(run, to_toml(profile), plan)
        return run

    def attempt_after(self, ended: Ended, step: int, profile: Profile) -> RunDirectory:
        """A copy of a run as if it had been killed after its checkpoint of `step`, and its next attempt."""
        run = self.new_run(profile)
        shutil.rmtree(run.path)
        shutil.copytree(ended.run.path, run.path)
        shutil.rmtree(run.adapter_dir)
        for checkpoint in run.checkpoints_dir.iterdir():
            if checkpoint.name > f"step-{step:05d}":
                shutil.rmtree(checkpoint)
        create_attempt(run, to_toml(profile), b"{}")
        return run

    def go(self, run: RunDirectory, world: int = WORLD, *, fault: str = "") -> Ended:
        """Run the newest attempt with ranks from the nursery; 0 of them is one process without a launcher."""
        attempt = run.attempts()[-1].number
        facts = run.path / f"facts-{attempt}"
        settings = {"run": str(run.path), "attempt": attempt, "fault": fault, "facts": str(facts)}
        with _alone(self.folder / "ranks.lock"):
            codes = self._ask({"world": world, "settings": settings})
        return Ended(run, codes, _read_facts(facts), attempt)

    def launched(self, name: str, profile: Callable[[], Profile]) -> Ended:
        """A run under torchrun, made once for all tests and workers."""

        def make(folder: Path) -> None:
            run = self.new_run(profile())
            facts = run.path / "facts-1"
            settings = {"run": str(run.path), "attempt": 1, "fault": "", "facts": str(facts)}
            with _alone(self.folder / "ranks.lock"):
                command = torchrun("tests.trainer.distributed.rank")
                environment = _environment() | {"RANK_SETTINGS": json.dumps(settings)}
                done = subprocess.run(command, env=environment, cwd=self.folder, check=False)
            (folder / "ended.json").write_text(json.dumps({"run": str(run.path), "code": done.returncode}))

        told = json.loads((self.once(name, make) / "ended.json").read_text())
        run = RunDirectory(Path(told["run"]))
        return Ended(run, [told["code"]], _read_facts(run.path / "facts-1"))

    def kept(self, name: str, profile: Callable[[], Profile], world: int = WORLD) -> Ended:
        """A run with ranks from the nursery, made once for all tests and workers."""

        def make(folder: Path) -> None:
            ended = self.go(self.new_run(profile()), world)
            told = {"run": str(ended.run.path), "codes": ended.codes, "facts": ended.facts}
            (folder / "ended.json").write_text(json.dumps(told))

        told = json.loads((self.once(name, make) / "ended.json").read_text())
        return Ended(RunDirectory(Path(told["run"])), told["codes"], told["facts"])

    def close(self) -> None:
        if self._nursery is not None:
            with self._nursery as nursery:
                assert nursery.stdin is not None
                nursery.stdin.close()

    def _ask(self, order: dict[str, Any]) -> list[int]:
        if self._nursery is None:
            command = [sys.executable, "-P", "-m", "tests.trainer.distributed.nursery"]
            pipe = subprocess.PIPE
            self._nursery = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, text=True, env=_environment(), cwd=self.folder
            )
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(order) + "\n")
        self._nursery.stdin.flush()
        codes: list[int] = json.loads(self._nursery.stdout.readline())
        return codes


def torchrun(*arguments: str) -> list[str]:
    """The launcher's command line, as the daemon has it."""
    launcher = [sys.executable, "-P", "-m", "torch.distributed.run", "--nnodes", "1"]
    return [*launcher, "--nproc-per-node", str(WORLD), "--standalone", "-m", *arguments]


@contextmanager
def launch(workshop: Workshop, run: RunDirectory) -> Iterator[subprocess.Popen[bytes]]:
    """torchrun with the real command's ranks, while inside."""
    with _alone(workshop.folder / "ranks.lock"):
        command = torchrun("dpo_trainer", str(run.path), "1")
        with subprocess.Popen(command, env=_environment(), cwd=workshop.folder) as launcher:
            try:
                yield launcher
            finally:
                launcher.terminate()


def _environment() -> dict[str, str]:
    """What a rank needs to find this tree's code, and nothing from the current folder."""
    packages = (dpo_profiles, dpo_telemetry, dpo_trainer)
    roots = [str(ROOT), *(str(Path(package.__path__[0]).parent) for package in packages)]
    own = {"PYTHONPATH": os.pathsep.join(roots), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def _read_facts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "workshop"
    folder.mkdir(exist_ok=True)
    made = Workshop(folder)
    yield made
    made.close()


def _save_model(folder: Path) -> None:
    """Two layers of the 72B's kind: biases in attention, grouped heads, a head of its own."""
    tokenizer = byte_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    set_seed(7)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def base(workshop: Workshop) -> Path:
    """A Qwen2 small enough for a test."""
    return workshop.once("model", _save_model)


@pytest.fixture(scope="session")
def trained_adapter(workshop: Workshop, base: Path) -> Path:
    """An adapter that changes the base already, as the 72B's does."""

    def make(folder: Path) -> None:
        adapter = Adapter()
        config = LoraConfig(
            r=adapter.r,
            lora_alpha=adapter.alpha,
            target_modules=list(adapter.target_modules),
            task_type="CAUSAL_LM",
        )
        set_seed(11)
        model = get_peft_model(Qwen2ForCausalLM.from_pretrained(base), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter.data, std=0.02)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(folder)

    return workshop.once("adapter", make)


MakeProfile = Callable[..., Profile]


@pytest.fixture(scope="session")
def profile_of(workshop: Workshop, base: Path, trained_adapter: Path) -> MakeProfile:
    """A profile for a backend, with four pairs a step whatever the ranks; sections take changes as dicts."""

    def write(folder: Path) -> None:
        write_rows(folder / "pairs.jsonl", preference_rows(40))
        (folder / "deepspeed.json").write_text(json.dumps(DEEPSPEED))

    files = workshop.once("files", write)

    def make(backend: str, **changes: dict[str, Any]) -> Profile:
        world = 1 if backend == "single" else WORLD
        zero = backend == "deepspeed-zero3"
        profile = Profile(
            name=f"tiny-{backend}",
            model=Model(base=str(base), compute_dtype="float32"),
            quantization=Quantization(storage_dtype="float32"),
            adapter=Adapter(path=str(trained_adapter), dropout=0.0),
            data=Data(name=str(files / "pairs.jsonl"), max_length_tokens=256, heldout_pairs=4),
            train=Train(max_steps=2, gradient_accumulation_steps=PAIRS_A_STEP // world, seed=5),
            optimizer=Optimizer(learning_rate=1e-3),
            schedule=Schedule(kind="constant", warmup_ratio=0.0),
            eval=Eval(every_steps=0),
            save=Save(every_steps=0, keep_last=0),
            engine=Engine(
                backend=backend,  # type: ignore[arg-type]
                gpus_per_node=world,
                deepspeed_file=str(files / "deepspeed.json") if zero else "",
            ),
        )
        sections = {name: msgspec.structs.replace(getattr(profile, name), **v) for name, v in changes.items()}
        return msgspec.structs.replace(profile, **sections)

    return make


@pytest.fixture(scope="session")
def learned(workshop: Workshop, profile_of: MakeProfile) -> Callable[[str], Ended]:
    """A run of a backend that learns, with a checkpoint on the way; the same training for all of them."""

    def get(backend: str) -> Ended:
        def profile() -> Profile:
            return profile_of(backend, train={"max_steps": 5}, save={"every_steps": 3})

        if backend == "single":
            return workshop.kept("learned-single", profile, world=0)
        return workshop.launched(f"learned-{backend}", profile)

    return get
