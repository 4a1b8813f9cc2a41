"""A model of the same architecture with few, narrow layers and random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, set_seed

from dpo_profiles.schema import Adapter
from dpo_trainer.errors import TrainerError, first_line
from dpo_trainer.model.adapter import add_policy
from dpo_trainer.rehearsal.base import Base

NF4_BLOCK = 64
"""Weights that share a scale; widths are multiples of it, so that no block spans two rows."""

_WIDTH_AT_LEAST = 128
_KEY_VALUE_HEADS_AT_MOST = 2
_HEAD_WIDTH_STEP = 8
"""Fused attention on a GPU takes head widths that are multiples of it."""

_INITIALIZER_RANGE = 0.1
"""At the usual 0.02 a narrow random model finds all answers equally likely."""

_TRAINED_B_STD = 0.02
"""An adapter that moves log-probs clearly, and leaves the base's output recognisable."""

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
_FACTORS_A_FREQUENCY = ("short_factor", "long_factor")
_EXPERT_WIDTHS = ("moe_intermediate_size", "shared_expert_intermediate_size")


def shrink(config: PretrainedConfig, layers: int, base_name: str) -> PretrainedConfig:
    """The same config with at most `layers` narrow layers.

    Kept: family, query heads a key-value head, ratio of the MLP's width, positions, tied or untied
    embeddings, vocabulary. Widths are multiples of `NF4_BLOCK`.

    Raises:
        TrainerError: the config has not the sizes of a decoder.
    """
    fields: dict[str, Any] = config.to_dict()
    absent = [name for name in _SIZES if not isinstance(fields.get(name), int)]
    if absent:
        raise TrainerError(
            f"model.base: {base_name}: its config has no {' and no '.join(absent)}; "
            "rehearse a decoder-only language model"
        )
    wide, kv_heads = fields["hidden_size"], fields.get("num_key_value_heads") or fields["num_attention_heads"]
    group = fields["num_attention_heads"] // kv_heads
    kv_heads = min(kv_heads, _KEY_VALUE_HEADS_AT_MOST)
    heads = kv_heads * group
    head_width = next(
        width
        for width in range(_HEAD_WIDTH_STEP, _WIDTH_AT_LEAST + 1, _HEAD_WIDTH_STEP)
        if heads * width >= _WIDTH_AT_LEAST and heads * width % NF4_BLOCK == 0
    )
    narrow = heads * head_width
    layers = min(layers, fields["num_hidden_layers"])
    fields |= {
        "num_hidden_layers": layers,
        "hidden_size": narrow,
        "num_attention_heads": heads,
        "intermediate_size": _in_blocks(fields["intermediate_size"] * narrow / wide),
        "initializer_range": _INITIALIZER_RANGE,
    }
    fields |= {name: _in_blocks(fields[name] * narrow / wide) for name in _EXPERT_WIDTHS if fields.get(name)}
    if fields.get("num_key_value_heads"):
        fields["num_key_value_heads"] = kv_heads
    rope = fields.get("rope_parameters") or {}
    old_head_width = fields.get("head_dim") or wide // fields["num_attention_heads"]
    for name in _FACTORS_A_FREQUENCY:
        if isinstance(rope.get(name), list):
            rope[name] = rope[name][: len(rope[name]) * head_width // old_head_width]
    if fields.get("head_dim"):
        fields["head_dim"] = head_width
    if fields.get("layer_types"):
        fields["layer_types"] = fields["layer_types"][:layers]
    fields.pop("quantization_config", None)
    shrunk: PretrainedConfig = type(config).from_dict(fields)
    return shrunk


def _in_blocks(width: float) -> int:
    return max(1, round(width / NF4_BLOCK)) * NF4_BLOCK


def write_model(base: Base, layers: int, seed: int, base_name: str, folder: Path) -> PreTrainedModel:
    """Make and write the small model with its tokenizer; gives it in float32.

    Written in bfloat16, as the large models are: the rehearsal reads, casts and quantises what the job
    will.

    Raises:
        TrainerError: the family cannot be made this small.
        OSError: the disk does not take it.
    """
    try:
        config = shrink(base.config, layers, base_name)
        config.vocab_size = max(config.vocab_size, len(base.tokenizer))
        if base.stands_in:
            config.eos_token_id, config.pad_token_id = (
                base.tokenizer.eos_token_id,
                base.tokenizer.pad_token_id,
            )
        set_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, trust_remote_code=False
        )
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        raise TrainerError(f"model.base: {base_name}: cannot be made small: {first_line(error)}") from error
    model.save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    return model.float()


def write_adapter(model: PreTrainedModel, adapter: Adapter, base_folder: Path, folder: Path) -> None:
    """Write a LoRA adapter of the profile's shape whose B is not zero, as a trained one's.

    Its numbers follow the model's in the sequence that the seed began.

    Raises:
        TrainerError: no layer has the name of a target module.
        OSError: the disk does not take it.
    """
    adapted = add_policy(model, adapter, None)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=_TRAINED_B_STD)
    adapted.peft_config["default"].base_model_name_or_path = str(base_folder)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
