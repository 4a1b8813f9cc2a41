"""An adapter's folder, and what its files say, read without loading a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dpo_profiles.schema import Adapter
from dpo_trainer.errors import Refused, TrainerError, first_line
from dpo_trainer.model.snapshot import snapshot

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"


def find_adapter(adapter: Adapter) -> Path:
    """Folder of the profile's trained adapter, its two files fetched when it is one of the hub's.

    Raises:
        TrainerError: there is no such adapter, or nobody who has it answers.
    """
    path = Path(adapter.path).expanduser()
    if path.exists() or adapter.path.startswith((".", "/", "~")):
        found: Path | None = path
    else:
        found = snapshot(adapter.path, [CONFIG, WEIGHTS], field="adapter.path")
    if found is None:
        raise TrainerError(
            f"adapter.path: {adapter.path}: the hub does not answer and the adapter is not in its cache; "
            "check the network, or give a local folder"
        )
    if not (found / CONFIG).is_file():
        where = path if found == path else adapter.path
        raise TrainerError(f"adapter.path: {where}: holds no {CONFIG}; give the folder of a PEFT adapter")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's adapter_config.json.

    Raises:
        TrainerError: it cannot be read, or is no JSON object.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_bytes())
    except OSError as error:
        raise TrainerError(f"adapter.path: {file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TrainerError(f"adapter.path: {file}: is not valid JSON: {error}; save it again") from error
    if not isinstance(config, dict):
        raise TrainerError(f"adapter.path: {file}: is no JSON object; give the folder of a PEFT adapter")
    return config


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of the adapter by its name, from the file's header.

    Raises:
        Refused: the weights are a pickle.
        TrainerError: there are none, or the file is cut or damaged.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        if (folder / PICKLED_WEIGHTS).is_file():
            raise Refused(
                f"adapter.path: {folder / PICKLED_WEIGHTS}: is a pickle, which can run code when it is read; "
                "load it with PEFT where you trust it and save it again, which writes safetensors"
            )
        raise TrainerError(f"adapter.path: {folder}: holds no {WEIGHTS}; give the folder of a PEFT adapter")
    try:
        with safe_open(str(file), framework="numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainerError(
            f"adapter.path: {file}: cannot be read: {first_line(error)}; copy or save it again"
        ) from error
