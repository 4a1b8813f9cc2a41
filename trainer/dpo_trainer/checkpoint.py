"""Checkpoints: everything a run needs to go on, whole or absent, with no pickle inside.

    checkpoints/step-00005/
      adapter_model.safetensors  adapter_config.json   the policy, float32, as PEFT writes it
      reference/                                       the frozen reference, the same way
      optimizer.safetensors                            NAME/KEY of each state tensor
      random.safetensors                               generators of torch, and of each GPU
      state.json                                       step, tokens, schedule, other generators

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
from peft import PeftModel

from dpo_trainer import files
from dpo_trainer.engine import Engine
from dpo_trainer.errors import TrainerError
from dpo_trainer.model.adapter import POLICY, REFERENCE, adapter_pairs, save_adapter

_PREFIX = "step-"
_NAME = re.compile(rf"{_PREFIX}\d+")
VERSION = 1


@dataclass(frozen=True)
class Position:
    """How far a run has come: optimizer steps, and tokens seen on all ranks."""

    step: int = 0
    tokens: int = 0


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

    def save(
        self,
        step: int,
        tokens: int,
        model: PeftModel,
        engine: Engine,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
    ) -> Path:
        """Write the checkpoint of a step and remove those that are no longer kept.

        Raises:
            OSError: the disk does not take it; what was there before is untouched.
        """
        target = self.folder / f"{_PREFIX}{step:05d}"
        with files.whole_folder(target) as folder:
            save_adapter(model, POLICY, self.base_name, folder)
            save_adapter(model, REFERENCE, self.base_name, folder / "reference")
            numbers = _save_optimizer(model, engine, optimizer, folder / "optimizer.safetensors")
            files.save_tensors(_random_tensors(), folder / "random.safetensors")
            state = {
                "version": VERSION,
                "step": step,
                "tokens": tokens,
                "scheduler": scheduler.state_dict(),
                "optimizer": numbers,
                "python_random": random.getstate(),
                "numpy_random": _numpy_state(),
            }
            (folder / "state.json").write_text(json.dumps(state, default=_as_json))
        if self.keep_last:
            for old in self.all()[: -self.keep_last]:
                shutil.rmtree(old, ignore_errors=True)
        return target


def read_position(checkpoint: Path) -> Position:
    """Where a checkpoint was written.

    Raises:
        TrainerError: it is damaged, or of another version.
    """
    state = _read_state(checkpoint)
    return Position(int(state["step"]), int(state["tokens"]))


def load_adapters(checkpoint: Path, model: PeftModel) -> None:
    """Put a checkpoint's policy and reference into the model's adapters.

    Raises:
        TrainerError: it is damaged, or holds another adapter.
    """
    for name, folder in ((POLICY, checkpoint), (REFERENCE, checkpoint / "reference")):
        weights = files.load_tensors(folder / "adapter_model.safetensors")
        wanted = dict(model.named_parameters())
        for key, value in weights.items():
            parameter = wanted.get(key.replace(".weight", f".{name}.weight"))
            if parameter is None or parameter.shape != value.shape:
                raise TrainerError(f"{folder}: {key} is no part of this run's adapter; start a new run")
            parameter.data.copy_(value)


def load_progress(
    checkpoint: Path,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Put a checkpoint's optimizer states and schedule back.

    Raises:
        TrainerError: it is damaged.
    """
    state = _read_state(checkpoint)
    tensors = files.load_tensors(checkpoint / "optimizer.safetensors")
    for name, (parameter, _) in adapter_pairs(model).items():
        own: dict[str, Any] = dict(state["optimizer"].get(name, {}))
        for key, value in tensors.items():
            if key.rpartition("/")[0] == name:
                field = key.rpartition("/")[2]
                # AdamW's step counter stays on the CPU; the moments live beside the weight.
                own[field] = value if value.dim() == 0 else value.to(parameter.device)
        optimizer.state[parameter] = own
    scheduler.load_state_dict(state["scheduler"])
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate


def load_random(checkpoint: Path) -> None:
    """Put a checkpoint's generators back, which dropout draws from.

    Raises:
        TrainerError: it is damaged.
    """
    _restore_random(_read_state(checkpoint), files.load_tensors(checkpoint / "random.safetensors"))


def _save_optimizer(
    model: PeftModel, engine: Engine, optimizer: torch.optim.Optimizer, path: Path
) -> dict[str, dict[str, Any]]:
    """Write the state tensors of each adapter weight; returns the states that are no tensors."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for name, (parameter, _) in adapter_pairs(model).items():
        for key, value in engine.full_optimizer_state(optimizer, parameter).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}/{key}"] = value.detach().cpu().clone().contiguous()
            else:
                numbers.setdefault(name, {})[key] = value
    files.save_tensors(tensors, path)
    return numbers


def _random_tensors() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _numpy_state() -> dict[str, Any]:
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    return state


def _restore_random(state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["cpu"])
    for i in range(torch.cuda.device_count()):
        if f"cuda:{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda:{i}"], i)
    version, numbers, gauss = state["python_random"]
    random.setstate((version, tuple(numbers), gauss))
    words = np.array(state["numpy_random"]["state"]["key"], dtype=np.uint32)
    state["numpy_random"]["state"]["key"] = words
    np.random.set_state(state["numpy_random"])


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_bytes())
    except (OSError, ValueError) as error:
        raise TrainerError(f"{checkpoint}: is no complete checkpoint: {error}; remove it") from error
    if state.get("version") != VERSION:
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
