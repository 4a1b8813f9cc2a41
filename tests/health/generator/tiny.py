"""A model small enough to train in seconds."""

from __future__ import annotations

import copy
import functools
import random

import torch
from tests.health.generator.pairs import Pair, noisy, with_filler
from tests.trainer.conftest import byte_tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

LANGUAGE_STEPS = 110
"""Enough to spell the answers, few enough to leave the log-prob of one at some -20 to -60."""


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    return byte_tokenizer(None)


@functools.cache
def eos_padded_tokenizer() -> PreTrainedTokenizerFast:
    """The same, padding with its end-of-sequence token."""
    words = byte_tokenizer(None)
    words.pad_token = words.eos_token
    return words


def base_model(seed: int = 7) -> PreTrainedModel:
    """A fresh copy of a model that has seen polite and rude answers alike."""
    return copy.deepcopy(_base(seed, fillers=0))


def talkative_model() -> PreTrainedModel:
    """One that has seen them with up to three sentences of filler behind them."""
    return copy.deepcopy(_base(7, fillers=3))


def new_model(seed: int) -> PreTrainedModel:
    """Random weights."""
    set_seed(seed)
    words = tokenizer()
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(words),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            bos_token_id=None,
        )
    )


@functools.cache
def _base(seed: int, fillers: int) -> PreTrainedModel:
    model = new_model(seed)
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(LANGUAGE_STEPS * (2 if fillers else 1)):
        loss = _language_loss(model, with_filler(noisy(0.5), step % (fillers + 1))(rng, 16))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return model


def _language_loss(model: PreTrainedModel, pairs: list[Pair]) -> torch.Tensor:
    words = tokenizer()
    texts = [pair.prompt + pair.chosen + words.eos_token for pair in pairs]
    batch = words(texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    loss: torch.Tensor = model(**batch, labels=labels).loss
    return loss
