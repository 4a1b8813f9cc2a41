"""The trained LoRA adapter and its frozen copy, the reference."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from dpo_profiles.schema import Adapter
from dpo_trainer.engine import Engine
from dpo_trainer.errors import TrainerError, first_line
from dpo_trainer.files import save_tensors
from dpo_trainer.model.nf4 import fingerprint

POLICY = "default"
"""Name of the trained adapter, which TRL copies into `REFERENCE`."""
REFERENCE = "ref"


def add_policy(base: PreTrainedModel, adapter: Adapter, trained: Path | None) -> PeftModel:
    """Put the profile's adapter on the base: a trained one, or a new one that changes nothing yet.

    Args:
        trained: folder of the adapter to start from, which `check_adapter` has held against base and
            profile; None makes a new one.

    Raises:
        TrainerError: the adapter cannot be loaded, or no layer has the name of a target module.
    """
    if trained is not None:
        return _load(base, adapter, trained)
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(adapter.target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        names = ", ".join(adapter.target_modules)
        raise TrainerError(
            f"adapter.target_modules: {names}: the base model has no linear layers of these names"
        ) from error


def _load(base: PreTrainedModel, adapter: Adapter, folder: Path) -> PeftModel:
    try:
        model = PeftModel.from_pretrained(base, str(folder), is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise TrainerError(f"adapter.path: {folder}: cannot be loaded: {first_line(error)}") from error
    set_dropout(model, adapter.dropout)
    return model


def set_dropout(model: PeftModel, dropout: float) -> None:
    """Give a loaded adapter the profile's dropout, whatever it was trained with."""
    config = model.peft_config[POLICY]
    config.lora_dropout = dropout
    for module in model.modules():
        layers = getattr(module, "lora_dropout", None)
        if isinstance(layers, nn.ModuleDict) and POLICY in layers:
            layers[POLICY] = nn.Dropout(dropout) if dropout > 0 else nn.Identity()


def make_equal(model: PeftModel, dtype: torch.dtype) -> dict[str, int]:
    """Make policy and reference the same numbers in the same dtype, bit for bit.

    TRL rounds the policy of a quantised base to bfloat16 and leaves the reference in float32: the
    reference still holds the unrounded values.

    Args:
        dtype: what adapters compute in.

    Returns:
        Fingerprints of the adapter that training starts from, by the policy's names.
    """
    prints = {}
    for name, (policy, reference) in adapter_pairs(model).items():
        reference.data = reference.data.to(dtype)
        policy.data = reference.data.clone()
        prints[name] = fingerprint(reference.data)
    return prints


def adapter_pairs(model: PeftModel) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Policy and reference parameter by the policy parameter's name."""
    parameters = dict(model.named_parameters())
    return {
        name: (parameter, parameters[name.replace(f".{POLICY}.", f".{REFERENCE}.")])
        for name, parameter in parameters.items()
        if f".{POLICY}." in name
    }


def adapter_weights(model: PeftModel, name: str, engine: Engine) -> dict[str, torch.Tensor]:
    """One adapter's weights as PEFT names them, float32, whole, on the CPU; to be called on all ranks.

    Args:
        name: `POLICY`, whose masters they are, or `REFERENCE`.
    """
    take = engine.full_master if name == POLICY else engine.full_tensor
    return {
        key.replace(f".{name}.", "."): take(parameter).float().clone().contiguous()
        for key, parameter in model.named_parameters()
        if f".{name}." in key
    }


def save_adapter(weights: dict[str, torch.Tensor], config: PeftConfig, base_name: str, folder: Path) -> None:
    """Write one adapter as PEFT does: float32 weights and `adapter_config.json`, and nothing else.

    Args:
        base_name: the base model's name or folder, for whoever loads the adapter.

    Raises:
        OSError: the disk does not take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(weights, folder / "adapter_model.safetensors")
    config = copy.copy(config)
    config.base_model_name_or_path = base_name
    config.inference_mode = True
    config.save_pretrained(str(folder))
