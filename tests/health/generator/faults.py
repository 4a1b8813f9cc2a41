"""What can be broken in a trainer or a model, each as it breaks in real runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from tests.health.generator.tiny import base_model, tokenizer
from tests.health.generator.training import Fault
from transformers import PreTrainedModel, Trainer

MARK = "~"
"""A character that no ordinary pair holds."""


def scale_gradients(factor: Callable[[int], float]) -> Fault:
    """Multiply every gradient by a factor of the number of updates so far."""

    def act(trainer: Trainer) -> None:
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient * factor(trainer.state.global_step))

    return act


def sum_log_probs_in_bf16(trainer: Trainer) -> None:
    """Log-probs leave the model in bf16, and are summed and subtracted so."""

    def round_them(module: Any, inputs: Any, output: Any) -> Any:
        output.log_probs = output.log_probs.to(torch.bfloat16)
        return output

    trainer.model.register_forward_hook(round_them)


def overflow_in_half(gain: float) -> Fault:
    """The last hidden state, `gain` times as large, passes through fp16, whose largest number is 65,504."""

    def through_half(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return (output * gain).half().float() / gain

    def act(trainer: Trainer) -> None:
        for name, module in trainer.model.named_modules():
            if name.endswith("model.norm"):
                module.register_forward_hook(through_half)

    return act


def truncated(length: int) -> Fault:
    """Sequences are cut to so many tokens, and pairs that lose their completions so are kept.

    TRL has dropped such pairs itself since its 1.x releases; older ones and other trainers keep them.
    """

    def act(trainer: Trainer) -> None:
        trainer.data_collator.max_length = length

    return act


def reference_is_policy(trainer: Trainer) -> None:
    """Reference and policy are one object."""
    trainer.ref_model = trainer.model


def optimizer_without_model(trainer: Trainer) -> None:
    """The optimizer was made before the adapter and holds none of its weights."""
    stray = torch.nn.Parameter(torch.zeros(1))
    trainer.optimizer = torch.optim.AdamW([stray], lr=trainer.args.learning_rate)
    trainer.create_optimizer = lambda *_: trainer.optimizer


def frozen_adapter(trainer: Trainer) -> None:
    """The adapter was loaded without `is_trainable`: no gradient reaches it and no optimizer holds it."""
    scale_gradients(lambda step: 0.0)(trainer)
    optimizer_without_model(trainer)


def poisoned_model(seed: int = 7) -> PreTrainedModel:
    """A model for which `MARK` is not a number."""
    model = base_model(seed)
    weight = model.get_input_embeddings().weight
    weight.data[tokenizer().convert_tokens_to_ids(MARK)] = math.nan
    head = torch.nn.Parameter(model.lm_head.weight.detach().clone().nan_to_num())
    model.config.tie_word_embeddings = False
    model.lm_head.weight = head
    return model


def lost_scales(layers: float, head: float, seed: int = 7) -> Callable[[], PreTrainedModel]:
    """A base whose quantised weights lost their scales: each is `layers` or `head` times what it was."""

    def make() -> PreTrainedModel:
        model = base_model(seed)
        for name, parameter in model.named_parameters():
            if name.endswith("proj.weight"):
                parameter.data.mul_(layers)
            elif name.startswith("lm_head"):
                parameter.data.mul_(head)
        return model

    return make


def drifted(noise: float, seed: int = 7) -> Callable[[], PreTrainedModel]:
    """A base that somebody trained on: each weight is off by a normal error of so much."""

    def make() -> PreTrainedModel:
        model = base_model(seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data.add_(noise * torch.randn(parameter.shape, generator=generator))
        return model

    return make


def with_dropout(share: float, seed: int = 7) -> Callable[[], PreTrainedModel]:
    """A base that drops a share of its attention while it trains."""

    def make() -> PreTrainedModel:
        model = base_model(seed)
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = share
        return model

    return make


def skipped_updates(skip: Callable[[int], bool], shown: float | None = None) -> Fault:
    """Updates for which `skip`, given how many came before, are left out although the schedule goes on.

    The gradient norm is logged as it is, or as `shown`: infinity where a loss scaler found an overflow.
    """

    def act(trainer: Trainer) -> None:
        clip = trainer.accelerator.clip_grad_norm_

        def clip_and_drop(parameters: Any, *args: Any, **named: Any) -> Any:
            listed = list(parameters)
            norm = clip(listed, *args, **named)
            if not skip(trainer.state.global_step):
                return norm
            for parameter in listed:
                parameter.grad = None
            return norm if shown is None else torch.tensor(shown)

        trainer.accelerator.clip_grad_norm_ = clip_and_drop

    return act
