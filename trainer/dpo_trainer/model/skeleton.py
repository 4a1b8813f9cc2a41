"""The base model without its weights: structure, buffers, and hollow parameters that take no memory.

Adapters and trainer are put on the skeleton, and weights come last, layer by layer, so that an
engine can shard each layer as soon as it is there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import init_empty_weights
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.quantizers import AutoHfQuantizer

from dpo_profiles.schema import Profile
from dpo_trainer.errors import TrainerError, first_line
from dpo_trainer.model.nf4 import keep_codes_in_place


def read_config(folder: Path, name: str) -> PretrainedConfig:
    """The base model's configuration.

    Raises:
        TrainerError: there is none, or its weights are quantised already.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError(f"model.base: {name}: cannot be loaded: {first_line(error)}") from error
    if getattr(config, "quantization_config", None):
        raise TrainerError(
            f"model.base: {name}: its weights are quantised already; give the unquantised model"
        )
    return config


def build_skeleton(
    config: PretrainedConfig, profile: Profile, compute_dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model on `device`, its linear layers 4-bit if the profile says so, all frozen.

    Raises:
        TrainerError: it is no causal language model.
    """
    try:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=compute_dtype,
                attn_implementation=profile.model.attention,
                trust_remote_code=False,
            )
    except (ValueError, KeyError, ImportError) as error:
        raise TrainerError(
            f"model.base: {profile.model.base}: cannot be loaded: {first_line(error)}"
        ) from error
    if profile.quantization.kind == "nf4":
        quantizer = AutoHfQuantizer.from_config(quantization(profile, compute_dtype), pre_quantized=False)
        quantizer.preprocess_model(model=model, device_map={"": str(device)})
        quantizer.postprocess_model(model)
        model.hf_quantizer = quantizer
    _put_hollow(model, device)
    keep_codes_in_place(model)
    return model.requires_grad_(False).eval()


def quantization(profile: Profile, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """The profile's NF4 in the words of transformers."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=profile.quantization.double_quantization,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=getattr(torch, profile.quantization.storage_dtype),
    )


def _put_hollow(model: nn.Module, device: torch.device) -> None:
    """One element on the device, seen in the shape of each parameter.

    On the meta device PEFT would put adapters there too, and their values would be gone. Codes have
    an integer type, because PEFT rounds adapters to the dtype of a floating base.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            codes = isinstance(module, Linear4bit) and name == "weight"
            dtype = torch.uint8 if codes else parameter.dtype
            empty = torch.zeros((), dtype=dtype, device=device).expand(parameter.shape)
            if codes:
                hollow: nn.Parameter = Params4bit(empty, requires_grad=False, **parameter.__dict__)
            else:
                hollow = nn.Parameter(empty, requires_grad=False)
            setattr(module, name, hollow)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer.to(device), name not in module._non_persistent_buffers_set)
    tie = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()
