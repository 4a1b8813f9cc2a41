"""Checkpoints: everything a run needs to go on, whole or absent, with no pickle inside.

    checkpoints/step-00005/
      adapter_model.safetensors  adapter_config.json   the policy, float32, as PEFT writes it
      reference/                                       the frozen reference, the same way
      optimizer.safetensors                            NAME/KEY of each state tensor
      random.safetensors                               RANK/DEVICE: generators of torch on each rank
      state.json                                       step, tokens, schedule, each rank's other generators

Adapter and moments are gathered and named by parameter, so nothing here depends on the engine
that wrote it.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftConfig, PeftModel

from dpo_trainer import files
from dpo_trainer.engine import Engine
from dpo_trainer.errors import TrainerError
from dpo_trainer.model.adapter import POLICY, REFERENCE, adapter_pairs, adapter_weights, save_adapter
from dpo_trainer.model.nf4 import fingerprint

_PREFIX = "step-"
_NAME = re.compile(rf"{_PREFIX}\d+")
VERSION = 1


@dataclass(frozen=True)
class Position:
    """How far a run has come: optimizer steps, and what all ranks have seen."""

    step: int = 0
    tokens: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class RandomState:
    """The generators of one rank, which dropout draws from."""

    devices: dict[str, torch.Tensor]
    """torch's, by kind of device."""
    python: Any
    numpy: dict[str, Any]

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """As they stand."""
        states = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        numbers = np.random.get_state(legacy=False)
        assert isinstance(numbers, dict)
        return cls(states, random.getstate(), numbers)


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds, gathered from all ranks; tensors are whole and on the CPU."""

    policy: dict[str, torch.Tensor]
    reference: dict[str, torch.Tensor]
    config: PeftConfig
    moments: dict[str, torch.Tensor]
    """NAME/KEY of each state tensor."""
    numbers: dict[str, dict[str, Any]]
    """States that are no tensors, by the parameter's name."""
    scheduler: dict[str, Any]
    random: list[RandomState]
    """By rank."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    base_name: str
    keep_last: int
    """0 keeps all."""

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        whole = [path for path in self.folder.glob(f"{_PREFIX}*") if _NAME.fullmatch(path.name)]
        return sorted(whole, key=lambda path: int(path.name[len(_PREFIX) :]))

    def remove_unfinished(self) -> None:
        """Remove what killed processes left of checkpoints."""
        files.remove_unfinished(self.folder, _PREFIX)

    def save(self, position: Position, content: Content, engine: Engine) -> Path:
        """Write what `gather` gave and remove what is no longer kept; the first rank writes, the others wait.

        Raises:
            OSError: the disk does not take it; what was there before is untouched.
        """
        target = self.folder / f"{_PREFIX}{position.step:05d}"
        if engine.ranks.rank == 0:
            with files.whole_folder(target) as folder:
                self._write(folder, position, content)
            if self.keep_last:
                for old in self.all()[: -self.keep_last]:
                    shutil.rmtree(old, ignore_errors=True)
        engine.ranks.wait()
        return target

    def _write(self, folder: Path, position: Position, content: Content) -> None:
        save_adapter(content.policy, content.config, self.base_name, folder)
        save_adapter(content.reference, content.config, self.base_name, folder / "reference")
        files.save_tensors(content.moments, folder / "optimizer.safetensors")
        generators = {
            f"{rank}/{device}": state
            for rank, found in enumerate(content.random)
            for device, state in found.devices.items()
        }
        files.save_tensors(generators, folder / "random.safetensors")
        state = {
            "version": VERSION,
            "step": position.step,
            "tokens": position.tokens,
            "pairs": position.pairs,
            "scheduler": content.scheduler,
            "optimizer": content.numbers,
            "python_random": [found.python for found in content.random],
            "numpy_random": [found.numpy for found in content.random],
        }
        (folder / "state.json").write_text(json.dumps(state, default=_as_json))


def gather(
    model: PeftModel,
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> Content:
    """What a checkpoint holds, whole, on the CPU; to be called on all ranks."""
    engine.give_back(model)
    moments, numbers = _optimizer_state(model, engine, optimizer)
    return Content(
        policy=adapter_weights(model, POLICY, engine),
        reference=adapter_weights(model, REFERENCE, engine),
        config=model.peft_config[POLICY],
        moments=moments,
        numbers=numbers,
        scheduler=scheduler.state_dict(),
        random=engine.ranks.gather(RandomState.now(engine.device)),
    )


def read_position(checkpoint: Path) -> Position:
    """Where a checkpoint was written.

    Raises:
        TrainerError: it is damaged, or of another version.
    """
    state = _read_state(checkpoint)
    try:
        return Position(int(state["step"]), int(state["tokens"]), int(state["pairs"]))
    except (KeyError, TypeError, ValueError) as error:
        raise TrainerError(f"{checkpoint}: is no complete checkpoint; remove it") from error


def load_adapters(checkpoint: Path, model: PeftModel) -> dict[str, int]:
    """Put a checkpoint's policy and reference into the model's adapters, before they are sharded.

    Returns:
        Fingerprints of the reference, by the policy's names.

    Raises:
        TrainerError: it is damaged, or holds another adapter.
    """
    prints = {}
    for name, folder in ((POLICY, checkpoint), (REFERENCE, checkpoint / "reference")):
        weights = files.load_tensors(folder / "adapter_model.safetensors")
        wanted = dict(model.named_parameters())
        if missing := adapter_keys(model) - weights.keys():
            raise TrainerError(f"{folder}: lacks {min(missing)}; remove its folder")
        for key, value in weights.items():
            parameter = wanted.get(key.replace(".weight", f".{name}.weight"))
            if parameter is None or parameter.shape != value.shape:
                raise TrainerError(f"{folder}: {key} is no part of this run's adapter; start a new run")
            parameter.data.copy_(value)
            prints[key.replace(".weight", f".{POLICY}.weight")] = fingerprint(parameter.data)
    return prints


def adapter_keys(model: PeftModel) -> set[str]:
    """Names of an adapter's weights as PEFT's files have them."""
    return {name.replace(f".{POLICY}.", ".") for name in adapter_pairs(model)}


def load_progress(
    checkpoint: Path,
    model: PeftModel,
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Put a checkpoint's masters, optimizer states and schedule back; to be called on all ranks.

    Raises:
        TrainerError: it is damaged.
    """
    state = _read_state(checkpoint)
    tensors = files.load_tensors(checkpoint / "optimizer.safetensors")
    weights = files.load_tensors(checkpoint / "adapter_model.safetensors")
    by_name: dict[str, dict[str, Any]] = {name: dict(own) for name, own in state["optimizer"].items()}
    for key, value in tensors.items():
        name, _, field = key.rpartition("/")
        by_name.setdefault(name, {})[field] = value
    engine.give_back(model)
    for name, (parameter, _) in adapter_pairs(model).items():
        # Not only before the engine began: one that computes in bfloat16 has its masters since then.
        engine.set_master(parameter, weights[name.replace(f".{POLICY}.", ".")])
        engine.set_optimizer_state(optimizer, parameter, by_name.get(name, {}))
    # A schedule has one learning rate a group, and engines do not have the same groups.
    rates = state["scheduler"]["_last_lr"][:1] * len(optimizer.param_groups)
    bases = state["scheduler"]["base_lrs"][:1] * len(optimizer.param_groups)
    own = scheduler.state_dict()
    scheduler.load_state_dict(
        state["scheduler"] | {"_last_lr": rates, "base_lrs": bases, "lr_lambdas": own["lr_lambdas"]}
    )
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def load_random(checkpoint: Path, engine: Engine) -> None:
    """Put this rank's generators back; a rank that the checkpoint does not know keeps its own.

    Raises:
        TrainerError: it is damaged.
    """
    state, rank = _read_state(checkpoint), engine.ranks.rank
    tensors = files.load_tensors(checkpoint / "random.safetensors")
    if rank >= len(state["python_random"]):
        return
    torch.set_rng_state(tensors[f"{rank}/cpu"])
    if engine.device.type == "cuda" and f"{rank}/cuda" in tensors:
        torch.cuda.set_rng_state(tensors[f"{rank}/cuda"], engine.device)
    version, numbers, gauss = state["python_random"][rank]
    random.setstate((version, tuple(numbers), gauss))
    numpy_state = state["numpy_random"][rank]
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state)


def _optimizer_state(
    model: PeftModel, engine: Engine, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """State tensors of each adapter weight, and the states that are no tensors."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for name, (parameter, _) in adapter_pairs(model).items():
        for key, value in engine.full_optimizer_state(optimizer, parameter).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}/{key}"] = value.detach().cpu().clone().contiguous()
            else:
                numbers.setdefault(name, {})[key] = value
    return tensors, numbers


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_bytes())
    except (OSError, ValueError) as error:
        raise TrainerError(f"{checkpoint}: is no complete checkpoint: {error}; remove it") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise TrainerError(f"{checkpoint}: was written by another version of the trainer")
    return state


def size_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _as_json(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")
