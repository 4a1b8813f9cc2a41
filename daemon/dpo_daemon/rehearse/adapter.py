"""A final adapter held to what PEFT needs of it, without the training stack."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
HEADER_LIMIT_BYTES = 100 << 20
"""As the format's own reader has it."""

_LENGTH_BYTES = 8
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


class Tensor(msgspec.Struct, frozen=True):
    """One entry of a safetensors header; offsets are bytes behind the header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def problem_with(folder: Path, r: int) -> str:
    """What keeps an adapter of rank `r` in PEFT's format from being loaded; empty where nothing does."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        tensors, size_bytes = _read(folder / WEIGHTS)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return f"{folder} cannot be read: {error}"
    if not isinstance(config, dict) or config.get("r") != r:
        return f"{folder / CONFIG} is not of an adapter with r = {r}"
    if not tensors:
        return f"{folder / WEIGHTS} holds no tensor"
    empty = [name for name, tensor in tensors.items() if 0 in tensor.shape]
    if empty:
        return f"{len(empty)} of {len(tensors)} tensors are empty, {empty[0]} among them: saved without gathering"
    end = max(tensor.data_offsets[1] for tensor in tensors.values())
    if end != size_bytes:
        return f"{folder / WEIGHTS} has {size_bytes} bytes of data, and its header speaks of {end}"
    for name, tensor in tensors.items():
        if problem := _shape_problem(name, tensor, r):
            return problem
    return ""


def count_tensors(folder: Path) -> int:
    """Tensors of an adapter that `problem_with` finds nothing against."""
    return len(_read(folder / WEIGHTS)[0])


def same_bytes(first: Path, second: Path) -> bool:
    """Whether two adapters' weights are the same file, byte for byte."""
    return (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()


def largest_difference(first: Path, second: Path) -> float:
    """Largest difference of two adapters' weights; infinite where they do not have the same tensors."""
    weights, others = _values(first / WEIGHTS), _values(second / WEIGHTS)
    if weights.keys() != others.keys():
        return math.inf
    differences = [
        float(np.max(np.abs(value - others[name]))) if value.shape == others[name].shape else math.inf
        for name, value in weights.items()
    ]
    return max(differences, default=math.inf)


def _shape_problem(name: str, tensor: Tensor, r: int) -> str:
    length = math.prod(tensor.shape) * _ITEM_BYTES.get(tensor.dtype, 0)
    if tensor.data_offsets[1] - tensor.data_offsets[0] != length:
        return f"{name}: {tensor.dtype} {tensor.shape} does not have the bytes that the header says"
    side = {"lora_A": 0, "lora_B": 1}
    for part, axis in side.items():
        if f".{part}." in name and (len(tensor.shape) != len(side) or tensor.shape[axis] != r):
            return f"{name}: has the shape {tensor.shape}, which is not that of rank {r}: a part of a tensor"
    return ""


def _read(file: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors by name, and the bytes of data behind the header.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no safetensors file.
    """
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if not 0 < header_bytes <= min(size_bytes - _LENGTH_BYTES, HEADER_LIMIT_BYTES):
            raise ValueError(f"{file.name} is no safetensors file")
        header: dict[str, Any] = msgspec.json.decode(stream.read(header_bytes), type=dict[str, Any])
    header.pop("__metadata__", None)
    return msgspec.convert(header, dict[str, Tensor]), size_bytes - _LENGTH_BYTES - header_bytes


def _values(file: Path) -> Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]:
    tensors, size_bytes = _read(file)
    data = file.read_bytes()[-size_bytes:]
    return {name: _as_float64(tensor, data) for name, tensor in tensors.items()}


def _as_float64(tensor: Tensor, data: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    piece = data[slice(*tensor.data_offsets)]
    if tensor.dtype == "BF16":
        # The upper half of a float32.
        return (np.frombuffer(piece, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    numpy_type = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[tensor.dtype]
    return np.frombuffer(piece, numpy_type).astype(np.float64)
