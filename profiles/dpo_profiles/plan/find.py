"""Where a model's config.json is: in a local folder, with this package, or in the hub's cache."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from dpo_profiles.errors import PlanUnavailableError
from dpo_profiles.plan.architecture import Architecture
from dpo_profiles.plan.config import ModelConfig
from dpo_profiles.plan.families import FAMILIES, architecture_of
from dpo_profiles.source import read_text
from dpo_profiles.text import one_line

KNOWN_MODELS = Path(str(resources.files("dpo_profiles"))) / "plan" / "configs" / "known.json"
"""Configs that come with this package, by the model's name."""
_ADDED_TO_NAMES = re.compile(r"[-_](instruct|chat|it|hf|base|thinking|bnb-4bit|\d+k)(?=[-_]|$)")
"""Parts of a name that do not change the sizes: fine-tuning and the context length."""


class _Kind(msgspec.Struct):
    model_type: str


def find_architecture(base: str, profile_name: str) -> Architecture:
    """The architecture of `model.base`: a local folder first, then a known name whoever owns it, then the cache.

    Raises:
        PlanUnavailableError: no config.json is at hand, or it is of a family that is not counted here.
    """
    local = Path(os.path.expanduser(base)) / "config.json"
    if os.path.isfile(local):
        return architecture_of(base, read_config(local))
    known = _known().get(_plain(base))
    if known is not None:
        return architecture_of(base, known)
    cached = _cached(base)
    if cached is not None:
        return architecture_of(base, read_config(cached))
    near = get_close_matches(_plain(base), list(_known()), n=3)
    raise PlanUnavailableError(
        f"{profile_name}: model.base: no config.json of {base!r} is on this machine, so there is no plan; "
        f"give a local folder, download the model, or take a known one"
        + (f" such as {', '.join(near)}" if near else "")
    )


def known_models() -> tuple[str, ...]:
    """Names of the models whose configs come with this package."""
    return tuple(msgspec.json.decode(KNOWN_MODELS.read_bytes(), type=dict[str, msgspec.Raw]))


def read_config(path: Path) -> ModelConfig:
    """A config.json of a family that is counted here; the text part of one for several kinds of input.

    Raises:
        PlanUnavailableError: unreadable, a size is missing, not positive or does not divide, or an unknown
            `model_type`.
    """
    text = read_text(path, str(path))
    try:
        whole = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        own = whole.get("text_config", text)
        kind = msgspec.json.decode(own, type=_Kind).model_type
        config = msgspec.json.decode(own, type=ModelConfig) if kind in FAMILIES else None
    except (msgspec.DecodeError, RecursionError) as error:
        raise PlanUnavailableError(
            f"{path}: {one_line(str(error))}; give a causal language model's config"
        ) from None
    if config is None:
        raise PlanUnavailableError(
            f"{path}: model_type: {kind!r} is not counted, so there is no plan; "
            f"known are {', '.join(FAMILIES)}"
        )
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        least = 0 if field.name in ("moe_intermediate_size", "shared_expert_intermediate_size") else 1
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            raise PlanUnavailableError(f"{path}: {field.name}: is {value}; sizes are 1 or more")
    _check_layout(path, config)
    return config


def _check_layout(path: Path, config: ModelConfig) -> None:
    """Heads have to divide what they divide, and a mixture has experts.

    Raises:
        PlanUnavailableError: they do not.
    """
    if config.model_type.endswith("_moe") and not (config.experts and config.moe_intermediate_size):
        raise PlanUnavailableError(
            f"{path}: num_experts, moe_intermediate_size: a mixture needs both; give the model's whole config"
        )
    heads, keys = config.num_attention_heads, config.key_value_heads
    said = config.head_dim or config.kv_channels
    if said is None and config.hidden_size % heads:
        raise PlanUnavailableError(
            f"{path}: hidden_size: {config.hidden_size} does not divide by num_attention_heads {heads}; "
            "give head_dim, or mend the config"
        )
    if heads % keys:
        raise PlanUnavailableError(
            f"{path}: num_attention_heads: {heads} does not divide by num_key_value_heads {keys}; "
            "mend the config"
        )


@cache
def _known() -> dict[str, ModelConfig]:
    configs = msgspec.json.decode(KNOWN_MODELS.read_bytes(), type=dict[str, ModelConfig])
    return {_plain(name): config for name, config in configs.items()}


def _plain(name: str) -> str:
    """A model's name without its owner and without what fine-tuning adds to it, in small letters."""
    return _ADDED_TO_NAMES.sub("", name.rstrip("/").rpartition("/")[2].lower())


def _cached(base: str) -> Path | None:
    """The newest snapshot in the Hugging Face cache, laid out as huggingface_hub documents it."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or f"{home}/hub"))
    folder = cache / f"models--{base.replace('/', '--')}" / "snapshots"
    found = sorted(folder.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None
