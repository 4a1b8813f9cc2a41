"""Logs in the shape of runs whose model cards print their training: rows 100 steps apart, each with an evaluation.

Levels, epochs and the scatter of an evaluation are the card's, rounded; the numbers are ours. A card prints
no gradients, no learning rates and no rewards of training, so the rules have the losses to go by.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.health.generator.case import Case
from tests.health.generator.training import Rows

STEPS_A_ROW = 100
CARDS = "https://huggingface.co/HuggingFaceH4"


@dataclass(frozen=True)
class Shape:
    """What a card shows; levels lie evenly from the first row to the last, with lines between them."""

    rows: int
    epochs: float
    seed: int
    loss: Sequence[float]
    """Of training."""
    eval_loss: Sequence[float]
    eval_margin: Sequence[float]
    eval_chosen: Sequence[float]
    """Rewards of the chosen answers."""
    eval_accuracy: Sequence[float]
    pairs: int
    """Of an evaluation."""
    beta: float
    loss_scatter: float
    """Standard deviation of a training loss, as a share of it."""
    eval_scatter: float
    """Standard deviation of an evaluation's loss, as a share of it."""


def log(shape: Shape) -> Rows:
    """Training rows and the evaluation behind each."""
    rng = random.Random(shape.seed)
    rows: Rows = []
    for at in range(shape.rows):
        part = at / (shape.rows - 1)
        margin = level(shape.eval_margin, part) * (1 + shape.eval_scatter * rng.gauss(0, 1))
        chosen = level(shape.eval_chosen, part) + shape.eval_scatter * rng.gauss(0, 1)
        right = level(shape.eval_accuracy, part) + 0.5 * shape.eval_scatter * rng.gauss(0, 1)
        place = {
            "epoch": round((at + 1) * shape.epochs / shape.rows, 2),
            "step": (at + 1) * STEPS_A_ROW,
        }
        loss = level(shape.loss, part) * max(0.3, 1 + shape.loss_scatter * rng.gauss(0, 1))
        evaluation = {
            "eval_loss": round(level(shape.eval_loss, part) * (1 + shape.eval_scatter * rng.gauss(0, 1)), 4),
            "eval_rewards/chosen": round(chosen, 4),
            "eval_rewards/rejected": round(chosen - margin, 4),
            "eval_rewards/accuracies": round(round(right * shape.pairs) / shape.pairs, 4),
            "eval_rewards/margins": round(margin, 4),
            "eval_logps/chosen": round(-254 + chosen / shape.beta, 4),
            "eval_logps/rejected": round(-257 + (chosen - margin) / shape.beta, 4),
        }
        rows += [{"loss": round(loss, 4)} | place, evaluation | place]
    return rows


def level(levels: Sequence[float], part: float) -> float:
    """The value at a share of the run."""
    at = part * (len(levels) - 1)
    before = min(int(at), len(levels) - 2)
    return levels[before] + (at - before) * (levels[before + 1] - levels[before])


_THREE_EPOCHS = Shape(
    rows=58, epochs=2.99, seed=301, pairs=64, beta=0.1, loss_scatter=0.12, eval_scatter=0.012,
    loss=(0.6, 0.53, 0.52, 0.51, 0.1, 0.1, 0.09, 0.08, 0.015, 0.012, 0.009, 0.008),
    eval_loss=(0.58, 0.5, 0.52, 0.52, 0.54, 0.57, 0.58, 0.6, 0.68, 0.71, 0.73, 0.752),
    eval_margin=(0.3, 1.4, 1.4, 1.5, 2.2, 2.4, 2.5, 2.5, 3.3, 3.6, 3.7, 3.8),
    eval_chosen=(0.0, -0.3, -0.5, -0.6, -1.2, -1.5, -1.7, -1.9, -3.2, -3.8, -4.2, -4.5),
    eval_accuracy=(0.74, 0.78, 0.77, 0.79, 0.79, 0.8, 0.83, 0.83, 0.8, 0.82, 0.81, 0.79),
)  # fmt: skip

_ONE_EPOCH = Shape(
    rows=19, epochs=0.98, seed=302, pairs=64, beta=0.1, loss_scatter=0.07, eval_scatter=0.02,
    loss=(0.55, 0.51, 0.47, 0.45, 0.46, 0.46), eval_loss=(0.55, 0.5, 0.49, 0.48, 0.465, 0.46),
    eval_margin=(0.6, 1.3, 1.2, 1.3, 1.35, 1.37), eval_chosen=(-0.35, -0.3, -0.5, -0.6, -0.6, -0.5),
    eval_accuracy=(0.74, 0.78, 0.75, 0.77, 0.77, 0.77),
)  # fmt: skip

_TWO_EPOCHS = Shape(
    rows=11, epochs=1.92, seed=303, pairs=316, beta=0.05, loss_scatter=0.02, eval_scatter=0.002,
    loss=(0.717, 0.6, 0.51, 0.49, 0.455, 0.45, 0.445), eval_loss=(0.6, 0.495, 0.459, 0.446, 0.441, 0.436, 0.435),
    eval_margin=(0.2, 0.8, 1.3, 1.55, 1.75, 1.8, 1.83), eval_chosen=(-0.1, -0.55, -0.8, -0.78, -1.0, -0.95, -0.95),
    eval_accuracy=(0.633, 0.71, 0.744, 0.755, 0.769, 0.77, 0.766),
)  # fmt: skip

PUBLISHED = (
    Case(
        "overfit_three_epochs_7b",
        lambda: log(_THREE_EPOCHS),
        f"after {CARDS}/zephyr-7b-beta: three epochs, eval_loss climbs from 0.50 to 0.75 while training's goes to"
        " 0.01",
        expect=("overfitting",),
        written=True,
    ),
    Case(
        "healthy_one_epoch_7b",
        lambda: log(_ONE_EPOCH),
        f"after {CARDS}/zephyr-7b-alpha: one epoch, both losses fall to 0.46",
        written=True,
    ),
    Case(
        "healthy_two_epochs_15b",
        lambda: log(_TWO_EPOCHS),
        f"after {CARDS}/starchat2-15b-v0.1: two epochs, eval_loss flattens at 0.435",
        written=True,
    ),
)
