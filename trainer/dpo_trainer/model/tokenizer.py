"""The base model's tokenizer."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dpo_profiles.schema import Profile
from dpo_trainer.errors import TrainerError, first_line
from dpo_trainer.model.preflight import check_tokenizer


def load_tokenizer(folder: Path, profile: Profile) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token.

    Raises:
        TrainerError: there is none in the folder, or it has no token to pad with.
        Refused: the profile's padding token is unknown to it.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError(
            f"model.base: {profile.model.base}: its tokenizer cannot be loaded: {first_line(error)}"
        ) from error
    check_tokenizer(tokenizer, profile)
    if profile.model.pad_token:
        tokenizer.pad_token = profile.model.pad_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise TrainerError("model.pad_token: the tokenizer has neither a padding nor an end token; name one")
    return tokenizer
