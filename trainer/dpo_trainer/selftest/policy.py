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
    """On the first batch margins are 0, and the loss is what it is at a margin of 0: ln 2 for DPO.

    Everything is computed on every rank before any judges its own batch: a rank that left early would
    leave the others waiting in a forward pass.
    """
    pair_ids, batch = trainer.first_batch()
    chosen, rejected = trainer.policy_log_probs(batch)
    before = trainer.reference_log_probs(pair_ids, batch)
    differences = torch.cat([chosen - before[0], rejected - before[1]])
    measured = trainer.first_loss(batch, pair_ids)
    complete = bool(batch["completion_mask"].any(dim=1).all())
    return _judge(_names(pair_ids), complete, differences, measured, loss_at_zero(loss))


def _judge(
    pairs: str, complete: bool, differences: torch.Tensor, measured: float, expected: float
) -> Finding:
    check = "first batch"
    if not complete:
        text = f"a completion of pairs {pairs} has no tokens, so nothing can be learned from it"
        return Finding(check, text, "empty_completions", "Raise data.max_length_tokens.")
    if not bool(torch.isfinite(differences).all()):
        text = f"log-probs of pairs {pairs} are not all numbers"
        return Finding(check, text, "nonfinite", "Look at these pairs, and at the base's weights.")
    if (worst := float(differences.abs().max())) != 0:
        text = f"policy and reference differ by up to {worst:.3g} nats before the first update"
        advice = "Check adapter.path and the dtypes of policy and reference."
        return Finding(check, text, "reference_mismatch", advice)
    # The loss is the ranks' mean, which is no number as soon as one rank's is none.
    if math.isfinite(measured) and abs(measured - expected) > LOSS_TOLERANCE * max(1.0, expected):
        text = f"the loss at a margin of 0 is {measured:.7g} and not {expected:.7g}: log-probs are rounded"
        advice = "Switch autocast off: model.autocast_dtype, or the engine's file."
        return Finding(check, text, "bf16_rounding", advice)
    return Finding(check, f"margin 0 and loss {measured:.7g} on pairs {pairs}")


def loss_at_zero(loss: Loss) -> float:
    """The loss where policy and reference are equal.

    Source: DPO -log sigmoid(0) = ln 2 (arXiv 2305.18290, equation 7), also with label noise (robust DPO,
    arXiv 2403.00409); hinge max(0, 1 - 0); IPO (0 - 1 / (2 beta))^2 (arXiv 2310.12036, equation 17).
    """
    return {"hinge": 1.0, "ipo": (1 / (2 * loss.beta)) ** 2}.get(loss.kind, math.log(2))


def _names(pair_ids: tuple[int, ...]) -> str:
    return ", ".join(str(pair) for pair in pair_ids)
