"""A real model small enough for a test: two layers, random weights, a tokenizer of bytes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dpo_profiles.render import to_toml
from dpo_profiles.schema import Data, Eval, Model, Optimizer, Profile, Save, Schedule, Train
from dpo_telemetry import events
from dpo_telemetry.events import Event
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_trainer import libraries

libraries.prepare_environment()
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    set_seed,
)

from dpo_trainer import engine, job
from dpo_trainer.data.pairs import make_pairs, schedule
from dpo_trainer.emit.callback import RunCallback
from dpo_trainer.model.adapter import add_policy
from dpo_trainer.model.fill import fill
from dpo_trainer.model.skeleton import build_skeleton, read_config

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = [
    "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<bos>", "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip


def byte_tokenizer(
    template: str | None = CHATML, *, eos: str = "<|im_end|>", bos: str | None = None
) -> PreTrainedTokenizerFast:
    """One token a byte, and the special tokens of four model families."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL_TOKENS)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, bos_token=bos, pad_token="<pad>", chat_template=template
    )


FOREIGN_WARNINGS = (
    # TRL 1.16 and PEFT 0.21 still use transformers' older names.
    r"ignore:.*is deprecated and will be removed in v6:FutureWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder loads the training stack, and bears its warnings."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.train)
            for warning in FOREIGN_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    set_seed(7)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chat(*contents: str, system: str = "") -> list[dict[str, str]]:
    turns = [{"role": "system", "content": system}] if system else []
    return turns + [
        {"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)
    ]


def preference_rows(count: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "chosen": chat(f"What is {n} plus {n}?", f"It is {2 * n}."),
            "rejected": chat(f"What is {n} plus {n}?", f"No idea, maybe {n}" + "!" * (n % 4)),
        }
        for n in range(count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def poison(model_folder: Path, into: Path) -> Path:
    """The same model, but for which one character is not a number."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = byte_tokenizer()
    model.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("~")] = math.nan
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().nan_to_num())
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    return into


def load_policy(folder: Path, profile: Profile) -> PeftModel:
    """The profile's model with a new adapter, loaded as a run of one process loads it."""
    single = engine.choose(profile)
    skeleton = build_skeleton(read_config(folder, "tiny"), profile, single.compute_dtype, single.device)
    model = add_policy(skeleton, profile.adapter, None)
    fill(model, folder, profile, single, lambda done, total, message: None)
    return model


def after_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Let `act` happen in the middle of a run: once, after the update of `step` and before its end."""
    original = RunCallback.on_optimizer_step

    def patched(self: RunCallback, args: Any, state: Any, *rest: Any, **named: Any) -> None:
        original(self, args, state, *rest, **named)
        if state.global_step + 1 == step:
            act()

    monkeypatch.setattr(RunCallback, "on_optimizer_step", patched)


@dataclass(frozen=True)
class Trained:
    """A run that ended, and what it told."""

    run: RunDirectory
    code: int
    events: list[Event]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def metric(self, name: str) -> list[float]:
        return [events.from_number(step.metrics[name]) for step in self.of(events.Step)]

    def alerts(self) -> list[str]:
        return [alert.code for alert in self.of(events.Alert)]


def read_events(run: RunDirectory, attempt: int = 1) -> list[Event]:
    lines = run.attempt(attempt).event_file("rank-00000").read_bytes().splitlines()
    return [event for line in lines if (event := events.decode(line)) is not None]


MakeProfile = Callable[..., Profile]
TrainRun = Callable[..., Trained]


@pytest.fixture
def make_profile(model_folder: Path, tmp_path: Path) -> MakeProfile:
    """A profile of two steps on twelve pairs; sections take changes as dicts."""
    rows = write_rows(tmp_path / "pairs.jsonl", preference_rows())
    base = Profile(
        name="tiny",
        model=Model(base=str(model_folder)),
        data=Data(name=str(rows), max_length_tokens=256, heldout_pairs=3),
        train=Train(max_steps=2, gradient_accumulation_steps=2, gradient_checkpointing=False, seed=5),
        optimizer=Optimizer(learning_rate=1e-2),
        schedule=Schedule(kind="constant", warmup_ratio=0.0),
        eval=Eval(every_steps=0),
        save=Save(every_steps=0),
    )

    def make(**changes: dict[str, Any]) -> Profile:
        sections = {name: msgspec.structs.replace(getattr(base, name), **v) for name, v in changes.items()}
        return msgspec.structs.replace(base, **sections)

    return make


@pytest.fixture
def poisoned_profile(make_profile: MakeProfile, model_folder: Path, tmp_path: Path) -> Profile:
    """A run whose pairs are no numbers to the model, but for the first; it is to stop at the first NaN."""
    profile = make_profile(
        model={"base": str(poison(model_folder, tmp_path / "nan"))},
        data={"heldout_pairs": 0, "heldout_fraction": 0.0},
        alerts={"nonfinite": "stop"},
    )
    seed = profile.train.seed
    pairs = make_pairs(preference_rows(), byte_tokenizer(), profile.data, seed)
    (first,) = schedule(pairs.train, 1, seed)
    rows = preference_rows()
    for number, row in enumerate(rows):
        if number != first.id:
            row["rejected"][-1]["content"] = "~"
    write_rows(Path(profile.data.name), rows)
    return profile


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[Profile], RunDirectory]:
    """A run directory with a first attempt."""

    def make(profile: Profile) -> RunDirectory:
        run = create_run(tmp_path / "runs", profile.name)
        create_attempt(run, to_toml(profile), b"{}")
        return run

    return make


@pytest.fixture
def train(new_run: Callable[[Profile], RunDirectory]) -> TrainRun:
    """Train a profile to its end in this process."""
    libraries.be_quiet()

    def run(profile: Profile, directory: RunDirectory | None = None) -> Trained:
        if directory is None:
            directory = new_run(profile)
        else:
            create_attempt(directory, to_toml(profile), b"{}")
        attempt = directory.attempts()[-1].number
        code = job.run(directory.path, attempt)
        return Trained(directory, code, read_events(directory, attempt))

    return run
