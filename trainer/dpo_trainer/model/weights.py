"""The base model's weights by name, one at a time, from its files or from the library's own loader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from dpo_profiles.schema import Profile
from dpo_trainer.errors import TrainerError, first_line

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class Weights(Protocol):
    """Where parameters come from."""

    def take(self, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters by their names in the base model, each once, in the compute dtype on the CPU."""
        ...


class FileWeights:
    """Reads safetensors files, one tensor in memory at a time.

    Files are open only while they are read: a mapped page counts to the process, and eight ranks
    would each seem to hold the whole model.
    """

    def __init__(self, files: dict[str, Path], dtype: torch.dtype) -> None:
        self._files = files
        self._dtype = dtype

    def take(self, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters by name, in the compute dtype on the CPU.

        Raises:
            TrainerError: a file is damaged.
        """
        for name in names:
            path = self._files[name]
            try:
                with safe_open(path, framework="pt", device="cpu") as file:
                    value = file.get_tensor(name)
                    value = value.to(self._dtype) if value.dtype != self._dtype else value.clone()
            except (OSError, SafetensorError) as error:
                raise TrainerError(
                    f"model.base: {path}: cannot be loaded: {first_line(error)}; fetch it again"
                ) from error
            yield name, value


class LoadedWeights:
    """Hands out the parameters of a model that is in memory already."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def take(self, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters by name; the model gives them up."""
        for name in names:
            owner, _, last = name.rpartition(".")
            module = self._model.get_submodule(owner)
            value = getattr(module, last).detach()
            setattr(module, last, nn.Parameter(torch.empty(0), requires_grad=False))
            yield name, value


def open_weights(folder: Path, names: set[str], profile: Profile, dtype: torch.dtype) -> tuple[Weights, bool]:
    """Weights of the model in `folder`, and whether they are read one at a time.

    Files whose names are not the model's own are converted by the library's loader, which needs
    the whole model in memory.

    Args:
        names: the parameters that will be taken.

    Raises:
        TrainerError: the folder holds no weights of such a model.
    """
    try:
        files = _files(folder)
        if names <= files.keys():
            return FileWeights(files, dtype), True
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, attn_implementation=profile.model.attention, trust_remote_code=False
        )
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError,
    ) as error:  # fmt: skip
        raise TrainerError(
            f"model.base: {folder}: its weights cannot be loaded: {first_line(error)}; fetch them again"
        ) from error
    return LoadedWeights(model), False


def _files(folder: Path) -> dict[str, Path]:
    """The file of each tensor; empty where there are no safetensors files."""
    index = folder / _INDEX
    if index.is_file():
        mapping = json.loads(index.read_bytes())["weight_map"]
        return {name: folder / _inside(file) for name, file in mapping.items()}
    single = folder / _SINGLE
    if not single.is_file():
        return {}
    with safe_open(single, framework="pt", device="cpu") as file:
        return dict.fromkeys(file.keys(), single)


def _inside(file: str) -> str:
    """An index is a file like any other: it may not name files elsewhere."""
    if Path(file).name != file:
        raise ValueError(f"{_INDEX} names {file!r}, which is not in the model's folder")
    return file
