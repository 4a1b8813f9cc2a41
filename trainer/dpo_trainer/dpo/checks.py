"""What must hold after the first update."""

from __future__ import annotations

import torch
from peft import PeftModel

from dpo_trainer.engine import Engine
from dpo_trainer.model.adapter import adapter_pairs

MOVED_FRACTION = 0.5
"""AdamW moves a weight that has a gradient by about the learning rate. Where less than this share
moves at all, the dtype is too coarse for the updates: 99.997 % move in float32, 2.4 % in bfloat16."""


def moved_fraction(model: PeftModel, engine: Engine, optimizer: torch.optim.Optimizer) -> float | None:
    """Share of the adapter's weights with a gradient that an update has moved from the reference.

    To be called on all ranks, when the first update was made and its gradients are still there. None
    when no weight has a gradient other than zero.
    """
    with_gradient = moved = 0
    for policy, reference in adapter_pairs(model).values():
        live = engine.had_gradient(optimizer, policy)
        if live is None:
            continue
        changed = engine.full_master(policy) != engine.full_tensor(reference)
        with_gradient += int(live.sum())
        moved += int((changed & live).sum())
    return moved / with_gradient if with_gradient else None
