"""Ranks do not hold a copy of the base each while they load it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

from ..conftest import byte_tokenizer
from .conftest import SHARDING, WORLD, MakeProfile, Workshop

WIDTH = 512
LAYERS = 48
GROWTH = 0.2
"""Of one bfloat16 copy of the model, for each rank more."""


def save_deep_model(folder: Path) -> None:
    """As in a large model, no matrix is much of the whole: half a percent."""
    tokenizer = byte_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    set_seed(7)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("backend", SHARDING)
def test_a_rank_more_takes_a_fraction_of_a_copy_more(
    workshop: Workshop, profile_of: MakeProfile, backend: str
) -> None:
    folder = workshop.once("deep-model", save_deep_model)
    copy_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    changes = {
        "model": {"base": str(folder), "compute_dtype": "bfloat16"},
        "quantization": {"storage_dtype": "bfloat16"},
        "adapter": {"path": "", "r": 1, "alpha": 1.0},
    }
    totals = {}
    for world in (WORLD, WORLD + 1):
        profile = profile_of(backend, **changes, engine={"gpus_per_node": world})
        # The first check ends the run: all that is wanted of it is that it loads.
        ended = workshop.go(workshop.new_run(profile), world, fault="weight_frozen")
        assert ended.codes == [1] * world, ended.log()
        facts = ended.run.path / "facts-1"
        totals[world] = sum(int(path.read_text()) for path in facts.glob("load-*.txt"))
    assert totals[WORLD + 1] - totals[WORLD] < GROWTH * copy_bytes, totals
    assert totals[WORLD] < copy_bytes, "two whole 4-bit copies, and what makes them, would be more"
