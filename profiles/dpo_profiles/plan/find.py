"""Where a model's config.json is: in a local folder, with this package, or in the hub's cache."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import msgspec

from dpo_profiles.errors import PlanUnavailableError
from dpo_profiles.plan.architecture import FAMILIES, Architecture, ModelConfig, architecture_of
from dpo_profiles.source import read_text
from dpo_profiles.text import one_line

CONFIG_FOLDER = Path(str(resources.files("dpo_profiles"))) / "plan" / "configs"


def find_architecture(base: str, profile_name: str) -> Architecture:
    """The architecture of `model.base`: a local folder first, then a known name whoever owns it, then the cache.

    Raises:
        PlanUnavailableError: no config.json is at hand, or it is of a family that is not counted here.
    """
    path = _config_path(base)
    if path is None:
        known = ", ".join(sorted(file.stem for file in CONFIG_FOLDER.glob("*.json")))
        raise PlanUnavailableError(
            f"{profile_name}: model.base: no config.json of {base!r} is on this machine, so there is no plan; "
            f"give a local folder, download the model, or take one of {known}"
        )
    return architecture_of(base, read_config(path))


def read_config(path: Path) -> ModelConfig:
    """A config.json of a family that is counted here.

    Raises:
        PlanUnavailableError: unreadable, a size is missing, not positive, or an unknown `model_type`.
    """
    text = read_text(path, str(path))
    try:
        config = msgspec.json.decode(text, type=ModelConfig)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PlanUnavailableError(
            f"{path}: {one_line(str(error))}; give a causal language model's config"
        ) from None
    if config.model_type not in FAMILIES:
        raise PlanUnavailableError(
            f"{path}: model_type: {config.model_type!r} is not counted, so there is no plan; "
            f"known are {', '.join(FAMILIES)}"
        )
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise PlanUnavailableError(f"{path}: {field.name}: is {value}; sizes are 1 or more")
    return config


def _config_path(base: str) -> Path | None:
    local = Path(os.path.expanduser(base)) / "config.json"
    if os.path.isfile(local):
        return local
    shipped = CONFIG_FOLDER / f"{base.rstrip('/').rpartition('/')[2]}.json"
    if os.path.isfile(shipped):
        return shipped
    return _cached(base)


def _cached(base: str) -> Path | None:
    """The newest snapshot in the Hugging Face cache, laid out as huggingface_hub documents it."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or f"{home}/hub"))
    folder = cache / f"models--{base.replace('/', '--')}" / "snapshots"
    found = sorted(folder.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None
