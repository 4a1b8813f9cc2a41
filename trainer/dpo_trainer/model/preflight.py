"""What of a tokenizer and of the number of ranks does not fit a profile, before weights are loaded."""

from __future__ import annotations

import difflib

from transformers import PreTrainedTokenizerBase

from dpo_profiles.schema import Profile
from dpo_trainer.errors import Refused

_SHARDING = ("deepspeed-zero3", "fsdp", "fsdp2")
_CANDIDATES = 3


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, profile: Profile) -> None:
    """Refuse a padding token that the tokenizer does not have.

    Raises:
        Refused: naming the special tokens that are nearest to it.
    """
    wanted = profile.model.pad_token
    if not wanted or wanted in tokenizer.get_vocab():
        return
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    special = sorted({*special, *tokenizer.all_special_tokens})
    near = difflib.get_close_matches(wanted, special, _CANDIDATES, cutoff=0.5) or special[:_CANDIDATES]
    told = f"; nearest to it are {', '.join(near)}" if near else ""
    raise Refused(
        f"model.pad_token: {wanted}: is not in the vocabulary of {profile.model.base}{told}; "
        "name a token that it has, or leave it empty"
    )


def check_ranks(world_size: int, layers: int, pairs: int, backend: str, micro_batch_pairs: int = 1) -> None:
    """Refuse more ranks than there is work for.

    Args:
        world_size: ranks in all.
        layers: decoder layers of the base.
        pairs: training pairs.
        backend: as `engine.backend` spells it.
        micro_batch_pairs: pairs that each rank takes in one forward pass.

    Raises:
        Refused: a sharding backend has more ranks than layers, or one forward pass of all ranks takes
            more pairs than there are.
    """
    where = f"engine.gpus_per_node: {world_size} ranks"
    if backend in _SHARDING and world_size > layers:
        raise Refused(f"{where}, and the base has {layers} decoder layers to shard; take {layers} or fewer")
    if world_size * micro_batch_pairs > pairs:
        raise Refused(
            f"{where} of {micro_batch_pairs} pairs each, and there are {pairs} training pairs; "
            "take fewer ranks, a smaller train.micro_batch_pairs, or more data"
        )
