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
from dpo_trainer.errors import TrainerError
from dpo_trainer.files import save_tensors
from dpo_trainer.model import reach
from dpo_trainer.model.nf4 import fingerprint

POLICY = "default"
"""Name of the trained adapter, which TRL copies into `REFERENCE`."""
REFERENCE = "ref"


def add_policy(base: PreTrainedModel, adapter: Adapter) -> PeftModel:
    """Put the profile's adapter on the base: a trained one, or a new one that changes nothing yet.

    Raises:
        TrainerError: there is no such adapter, it is not what the profile says, it does not fit the
            base, or no layer has the name of a target module.
    """
    if adapter.path:
        return _load(base, adapter)
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


def _load(base: PreTrainedModel, adapter: Adapter) -> PeftModel:
    path = Path(adapter.path).expanduser()
    local = path.exists() or adapter.path.startswith((".", "/", "~"))
    if local and not (path / "adapter_config.json").is_file():
        raise TrainerError(
            f"adapter.path: {path}: holds no adapter_config.json; give the folder of a PEFT adapter"
        )
    if not local:
        reach.set_offline(not reach.hub_answers())
    try:
        model = PeftModel.from_pretrained(base, str(path) if local else adapter.path, is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainerError(f"adapter.path: {adapter.path}: cannot be loaded: {reason}") from error
    _require_as_planned(model, adapter)
    set_dropout(model, adapter.dropout)
    return model


def _require_as_planned(model: PeftModel, adapter: Adapter) -> None:
    """Refuse a loaded adapter of another shape: the plan and the run's record would be wrong."""
    config: PeftConfig = model.peft_config[POLICY]
    if not isinstance(config, LoraConfig):
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise TrainerError(f"adapter.path: {adapter.path}: is a {kind} adapter; give a LoRA adapter")
    planned = (adapter.r, adapter.alpha, sorted(adapter.target_modules))
    found = (config.r, config.lora_alpha, _target_names(model, config))
    for field, wanted, loaded in zip(("r", "alpha", "target_modules"), planned, found, strict=True):
        if wanted != loaded:
            raise TrainerError(
                f"adapter.{field}: the profile says {wanted}, the adapter in {adapter.path} has {loaded}; "
                "set it to the adapter's"
            )


def _target_names(model: PeftModel, config: LoraConfig) -> list[str]:
    """The adapter's target modules; where it has a pattern, the names of the layers that it hit."""
    if config.target_modules and not isinstance(config.target_modules, str):
        return sorted(config.target_modules)
    layers = (name for name, module in model.named_modules() if POLICY in getattr(module, "lora_A", ()))
    return sorted({name.rpartition(".")[2] for name in layers})


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
