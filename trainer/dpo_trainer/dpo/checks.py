"""What must hold before the first update and after it."""

from __future__ import annotations

import torch
from peft import PeftModel

from dpo_trainer.dpo.trainer import PairTrainer
from dpo_trainer.errors import TrainerError
from dpo_trainer.model.adapter import adapter_pairs

MOVED_FRACTION = 0.5
"""AdamW moves a weight that has a gradient by about the learning rate. Where less than this share
moves at all, the dtype is too coarse for the updates: 99.997 % move in float32, 2.4 % in bfloat16."""


def require_trainable_adapter(model: PeftModel) -> None:
    """Hold that the policy adapter, and nothing else, is trained.

    Raises:
        TrainerError: something else is trainable, or a part of the adapter is not.
    """
    wanted = set(adapter_pairs(model))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if extra := sorted(trained - wanted):
        raise TrainerError(f"adapter: {extra[0]} would be trained and is no part of the adapter")
    if not wanted:
        raise TrainerError("adapter.target_modules: the adapter has no weights on this base")
    if frozen := sorted(wanted - trained):
        raise TrainerError(f"adapter: {frozen[0]} is a part of the adapter and would not be trained")


def reference_difference(trainer: PairTrainer) -> float:
    """Largest difference in nats between policy and reference on the first training batch.

    Both without dropout. Zero, bit for bit, when the reference is the policy that training
    starts from; NaN when a log-prob is.
    """
    pair_ids, batch = trainer.first_batch()
    policy = torch.cat(trainer.policy_log_probs(batch))
    reference = torch.cat(trainer.reference_log_probs(pair_ids, batch))
    return float((policy - reference).abs().max())


def moved_fraction(model: PeftModel) -> float | None:
    """Share of the adapter's weights with a gradient that an update has moved from the reference.

    To be called when the first update was made and its gradients are still there. None when no
    weight has a gradient other than zero.
    """
    with_gradient = moved = 0
    for policy, reference in adapter_pairs(model).values():
        if policy.grad is None:
            continue
        live = policy.grad != 0
        with_gradient += int(live.sum())
        moved += int(((policy != reference) & live).sum())
    return moved / with_gradient if with_gradient else None
