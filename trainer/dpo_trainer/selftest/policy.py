"""What is trained, and that it starts at its reference."""

from __future__ import annotations

import math

import torch
from peft import PeftModel

from dpo_profiles.schema import Loss
from dpo_trainer.dpo.trainer import PairTrainer
from dpo_trainer.engine import Engine
from dpo_trainer.model.adapter import adapter_pairs
from dpo_trainer.model.nf4 import fingerprint
from dpo_trainer.selftest.finding import Finding

LOSS_TOLERANCE = 1e-6
"""Of float32 around ln 2."""


def trainable(model: PeftModel, engine: Engine) -> Finding:
    """The policy adapter, and nothing else, is trained, in the master dtype of the profile."""
    check = "trainable"
    wanted = set(adapter_pairs(model))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if extra := sorted(trained - wanted):
        text = f"{len(extra)} parameters would be trained that are no part of the adapter, the first is {extra[0]}"
        return Finding(check, text, "base_corrupted", "Freeze everything but the policy adapter.")
    if frozen := sorted(wanted - trained):
        text = (
            f"{len(frozen)} of {len(wanted)} adapter weights would not be trained, the first is {frozen[0]}"
        )
        return Finding(check, text, "adapter_frozen", "Load the adapter as trainable.")
    if not wanted:
        return Finding(
            check, "the adapter has no weights on this base", "adapter_empty", "Check adapter.target_modules."
        )
    dtype = engine.profile.adapter.master_dtype
    masters = {
        str(engine.master_dtype(parameter)).removeprefix("torch.")
        for parameter, _ in adapter_pairs(model).values()
    }
    if masters != {dtype}:
        text = f"masters are {', '.join(sorted(masters))}, and adapter.master_dtype says {dtype}"
        return Finding(check, text, "adapter_frozen", "At a DPO learning rate bfloat16 rounds updates away.")
    return Finding(check, f"{len(wanted)} weights of the policy adapter, {dtype} masters, and nothing else")


def reference(model: PeftModel, engine: Engine, started_from: dict[str, int]) -> Finding:
    """The frozen reference, gathered again, is the adapter that training starts from."""
    found = {
        name: fingerprint(engine.full_tensor(frozen)) for name, (_, frozen) in adapter_pairs(model).items()
    }
    wrong = [name for name, value in found.items() if value != started_from[name]]
    if wrong:
        return Finding(
            "reference",
            f"{len(wrong)} of {len(found)} reference weights are not those of the adapter that training "
            f"starts from, the first is {wrong[0]}",
            "reference_mismatch",
            "Check adapter.path and the dtypes of policy and reference.",
        )
    return Finding("reference", f"{len(found)} weights are those of the adapter that training starts from")


def first_batch(trainer: PairTrainer, loss: Loss) -> Finding:
    """On the first batch margins are 0, and the loss is what it is at a margin of 0: ln 2 for DPO."""
    check = "first batch"
    pair_ids, batch = trainer.first_batch()
    if not bool(batch["completion_mask"].any(dim=1).all()):
        return Finding(
            check,
            f"a completion of pairs {_names(pair_ids)} has no tokens, so nothing can be learned from it",
            "empty_completions",
            "Raise data.max_length_tokens.",
        )
    chosen, rejected = trainer.policy_log_probs(batch)
    before = trainer.reference_log_probs(pair_ids, batch)
    differences = torch.cat([chosen - before[0], rejected - before[1]])
    if not bool(torch.isfinite(differences).all()):
        text = f"log-probs of pairs {_names(pair_ids)} are not all numbers"
        return Finding(check, text, "nonfinite", "Look at these pairs, and at the base's weights.")
    worst = float(differences.abs().max())
    if worst != 0:
        return Finding(
            check,
            f"policy and reference differ by up to {worst:.3g} nats before the first update",
            "reference_mismatch",
            "Check adapter.path and the dtypes of policy and reference.",
        )
    measured, expected = trainer.first_loss(batch, pair_ids), loss_at_zero(loss)
    if abs(measured - expected) > LOSS_TOLERANCE * max(1.0, expected):
        text = f"the loss at a margin of 0 is {measured:.7g} and not {expected:.7g}: log-probs are rounded"
        return Finding(
            check, text, "bf16_rounding", "Switch autocast off: model.autocast_dtype, or the engine's file."
        )
    return Finding(check, f"margin 0 and loss {measured:.7g} on pairs {_names(pair_ids)}")


def loss_at_zero(loss: Loss) -> float:
    """The loss where policy and reference are equal.

    Source: DPO -log sigmoid(0) = ln 2 (arXiv 2305.18290, equation 7), also with label noise (robust DPO,
    arXiv 2403.00409); hinge max(0, 1 - 0); IPO (0 - 1 / (2 beta))^2 (arXiv 2310.12036, equation 17).
    """
    return {"hinge": 1.0, "ipo": (1 / (2 * loss.beta)) ** 2}.get(loss.kind, math.log(2))


def _names(pair_ids: tuple[int, ...]) -> str:
    return ", ".join(str(pair) for pair in pair_ids)
