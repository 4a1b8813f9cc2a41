"""Engine files stay native: DeepSpeed's JSON and accelerate's YAML, read here but never changed."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.source import read_text
from dpo_profiles.text import kind_of, one_line

AUTO = "auto"
"""DeepSpeed files leave a value to the Hugging Face Trainer with this word."""
TRUE_WORDS = ("y", "yes", "t", "true", "on", "1")
FALSE_WORDS = ("n", "no", "f", "false", "off", "0")
"""What accelerate takes for true and false (utils/environment.py, `str_to_bool`)."""
FSDP1_KEEPS = ("SHARD_GRAD_OP", "2", "HYBRID_SHARD_ZERO2", "5")
"""Strategies that keep gathered layers, by name and by number."""


class EngineFile(msgspec.Struct, frozen=True, kw_only=True):
    """An engine file as it stands."""

    path: Path
    table: dict[str, Any]

    def get(self, path: str) -> Any:
        """The value at `a.b.c`; None where the file does not say, or leaves it to "auto"."""
        value: Any = self.table
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return None if value == AUTO else value


def read_deepspeed(path: Path) -> EngineFile:
    """DeepSpeed's JSON.

    Raises:
        ProfileError: unreadable, no JSON (with line and column), or no object.
    """
    text = read_text(path, str(path))
    try:
        table = _json(text)
    except json.JSONDecodeError as error:
        raise ProfileError(
            f"{path}: line {error.lineno}, column {error.colno}: is not JSON: {error.msg}; mend that line"
        ) from None
    except (RecursionError, ValueError) as error:
        raise ProfileError(f"{path}: is not JSON: {one_line(str(error))}; mend the file") from None
    return EngineFile(path=path, table=_table(table, path, "JSON object"))


def read_accelerate(path: Path) -> EngineFile:
    """accelerate's YAML.

    Raises:
        ProfileError: unreadable, no YAML, or no mapping.
    """
    text = read_text(path, str(path))
    try:
        table = _yaml(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ProfileError(f"{path}: is not YAML: {one_line(str(error))}; mend that line") from None
    return EngineFile(path=path, table=_table(table, path, "YAML mapping"))


def offloads_parameters(file: EngineFile) -> bool:
    """Whether shards of parameters rest in the host's memory (or, under DeepSpeed, on its NVMe)."""
    accelerate = _flag(file.get("fsdp_config.fsdp_offload_params"))
    return accelerate or _elsewhere(file, "zero_optimization.offload_param")


def offloads_optimizer(file: EngineFile) -> bool:
    """Whether the optimizer's states rest in the host's memory, and it computes there.

    FSDP moves them with the parameters. DeepSpeed has a setting of its own; with a `ratio` below 1 a part stays on
    the GPU, and which is not known before it runs, so it counts as none.
    """
    if _flag(file.get("fsdp_config.fsdp_offload_params")):
        return True
    ratio = file.get("zero_optimization.offload_optimizer.ratio")
    return ratio in (None, 1) and _elsewhere(file, "zero_optimization.offload_optimizer")


def reshards_after_forward(file: EngineFile) -> bool:
    """Whether accelerate's FSDP gives each gathered layer back after its forward pass.

    Under FSDP1 `fsdp_sharding_strategy` says it: its launcher hands that on always, and the plugin then ignores
    `fsdp_reshard_after_forward` (accelerate/utils/dataclasses.py, `FullyShardedDataParallelPlugin`).
    """
    if file.get("fsdp_config.fsdp_version") == 2:
        said = file.get("fsdp_config.fsdp_reshard_after_forward")
        return True if said is None else _flag(said)
    return str(file.get("fsdp_config.fsdp_sharding_strategy")).upper() not in FSDP1_KEEPS


def _flag(value: object) -> bool:
    """As accelerate's launcher hands it on: the text of it, of any case."""
    return str(value).lower() in TRUE_WORDS


def _elsewhere(file: EngineFile, key: str) -> bool:
    return file.get(f"{key}.device") not in (None, "none")


@lru_cache(maxsize=16)
def _json(text: str) -> Any:
    return json.loads(text)


@lru_cache(maxsize=16)
def _yaml(text: str) -> Any:
    return msgspec.yaml.decode(text)


def _table(value: Any, path: Path, wanted: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProfileError(f"{path}: holds {kind_of(value)}; give a {wanted}")
    return value
