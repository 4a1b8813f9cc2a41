"""The frozen base model, quantised while it is loaded, and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dpo_profiles.schema import Profile
from dpo_trainer.errors import TrainerError


def load_tokenizer(folder: Path, profile: Profile) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token.

    Raises:
        TrainerError: there is none in the folder, or the profile's padding token is unknown to it.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError(
            f"model.base: {profile.model.base}: its tokenizer cannot be loaded: {_first_line(error)}"
        ) from error
    if profile.model.pad_token:
        if profile.model.pad_token not in tokenizer.get_vocab():
            raise TrainerError(
                f"model.pad_token: {profile.model.pad_token}: is not in the tokenizer's vocabulary"
            )
        tokenizer.pad_token = profile.model.pad_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise TrainerError("model.pad_token: the tokenizer has neither a padding nor an end token; name one")
    return tokenizer


def load_base(
    folder: Path, profile: Profile, compute_dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The base model on `device`, its linear layers in NF4 if the profile says so, all frozen.

    Raises:
        TrainerError: the folder holds no causal language model that can be loaded.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=compute_dtype,
            quantization_config=_quantization(profile, compute_dtype),
            device_map={"": str(device)},
            attn_implementation=profile.model.attention,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise TrainerError(
            f"model.base: {profile.model.base}: cannot be loaded: {_first_line(error)}"
        ) from error
    keep_codes_in_place(model)
    return model.requires_grad_(False)


def keep_codes_in_place(model: torch.nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit codes for AVX512-BF16 the first time a layer evaluates.

    The repacking is lossy and cannot be undone for training: log-probs move by 0.065 after it.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _quantization(profile: Profile, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if profile.quantization.kind == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=profile.quantization.double_quantization,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=getattr(torch, profile.quantization.storage_dtype),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
