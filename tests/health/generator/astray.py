"""Runs that learn the wrong thing, or too much of it."""

from __future__ import annotations

from tests.health.generator.case import broken
from tests.health.generator.faults import (
    scale_gradients,
)
from tests.health.generator.pairs import (
    few,
    graded,
    near_twins,
    noisy,
    swapped_between,
    with_filler,
)
from tests.health.generator.tiny import talkative_model
from tests.health.generator.training import Recipe

_RIGHT = noisy(0.0)

_WRONG = noisy(1.0)

_SWAPPED = (
    broken(
        "swapped_against_eval",
        "labels_swapped",
        "the columns of training are swapped, those of evaluation not",
        Recipe(seed=221, pairs=_WRONG, heldout=_RIGHT, eval_every=10),
        allow=("overfitting",),
    ),
    broken(
        "swapped_sign",
        "labels_swapped",
        "the update climbs the loss: accuracy goes to 0",
        Recipe(seed=222, faults=(scale_gradients(lambda step: -1.0),), steps=50),
        allow=("loss_not_falling", "accuracy_low"),
    ),
    broken(
        "swapped_sign_slow",
        "labels_swapped",
        "the same, slowly, logged every 5 steps",
        Recipe(
            seed=223,
            learning_rate=3e-4,
            batch=4,
            log_every=5,
            steps=120,
            faults=(scale_gradients(lambda step: -1.0),),
        ),
        allow=("loss_not_falling", "accuracy_low"),
    ),
    broken(
        "swapped_against_eval_noisy",
        "labels_swapped",
        "the same with pairs that annotators do not quite agree on",
        Recipe(
            seed=224,
            pairs=swapped_between(graded(3.0), 0, 10**6),
            heldout=graded(3.0),
            eval_every=15,
            steps=75,
        ),
        allow=("overfitting",),
        held=True,
    ),
    broken(
        "swapped_sign_full",
        "labels_swapped",
        "the update climbs the loss, all weights",
        Recipe(
            seed=225, lora=None, learning_rate=5e-5, faults=(scale_gradients(lambda step: -1.0),), steps=60
        ),
        allow=("loss_not_falling", "accuracy_low"),
    ),
    broken(
        "swapped_sign_held",
        "labels_swapped",
        "the update climbs the loss, two pairs a step",
        Recipe(
            seed=226,
            pairs=noisy(0.1),
            learning_rate=3e-4,
            batch=2,
            steps=80,
            faults=(scale_gradients(lambda step: -1.0),),
        ),
        allow=("loss_not_falling", "accuracy_low"),
        held=True,
    ),
)

_DISPLACED = (
    broken(
        "displaced_high_rate",
        "likelihood_displacement",
        "all weights at a learning rate a hundred times too high",
        Recipe(seed=251, lora=None, learning_rate=1e-2, schedule="constant", options={"max_grad_norm": 0.0}),
    ),
    broken(
        "displaced_twins",
        "likelihood_displacement",
        "completions share all but a number: both log-probs fall",
        Recipe(seed=261, pairs=few(near_twins, 40), lora=None, learning_rate=5e-4, steps=100),
    ),
    broken(
        "displaced_lora",
        "likelihood_displacement",
        "the same with LoRA at a high learning rate",
        Recipe(seed=262, pairs=few(near_twins, 24), learning_rate=3e-3, steps=100),
    ),
    broken(
        "displaced_beta_001",
        "likelihood_displacement",
        "beta 0.01 leaves the policy free to run away",
        Recipe(seed=263, pairs=few(near_twins, 40), beta=0.01, learning_rate=3e-3, steps=100),
        told=True,
        allow=("margin_small", "loss_not_falling"),
    ),
    broken(
        "displaced_held",
        "likelihood_displacement",
        "another seed",
        Recipe(seed=264, pairs=few(near_twins, 32), lora=None, learning_rate=5e-4, steps=90),
        held=True,
    ),
    broken(
        "displaced_lora_held",
        "likelihood_displacement",
        "near twins, LoRA at a high learning rate",
        Recipe(seed=265, pairs=few(near_twins, 28), learning_rate=3e-3, steps=90),
        held=True,
    ),
)

_COLLAPSED = ("likelihood_displacement",)
"""Log-probs of the chosen answers sink too when a policy is driven so far."""

_TOO_FAR = (
    broken(
        "over_separable",
        "over_optimisation",
        "pairs that a word tells apart, a high learning rate",
        Recipe(seed=271, pairs=_RIGHT, lora=None, learning_rate=1e-3, steps=80),
        allow=_COLLAPSED,
    ),
    broken(
        "over_lora",
        "over_optimisation",
        "LoRA at 5e-3 for many epochs",
        Recipe(seed=272, pairs=few(_RIGHT, 40), learning_rate=5e-3, steps=100),
        allow=_COLLAPSED,
    ),
    broken(
        "over_duplicates",
        "over_optimisation",
        "four pairs over and over",
        Recipe(seed=273, pairs=few(_RIGHT, 4), lora=None, learning_rate=5e-4, steps=80),
        allow=_COLLAPSED,
    ),
    broken(
        "over_beta_05",
        "over_optimisation",
        "beta 0.5 and a high learning rate",
        Recipe(seed=274, pairs=_RIGHT, beta=0.5, lora=None, learning_rate=6e-4, steps=70, eval_every=20),
        allow=_COLLAPSED,
        held=True,
    ),
    broken(
        "over_duplicates_held",
        "over_optimisation",
        "six pairs over and over, LoRA",
        Recipe(seed=275, pairs=few(_RIGHT, 6), learning_rate=4e-3, steps=80),
        allow=_COLLAPSED,
        held=True,
    ),
)

_OVERFIT = (
    broken(
        "overfit_few",
        "overfitting",
        "16 pairs, a third of them wrong, learned by heart",
        Recipe(
            seed=281,
            pairs=few(noisy(0.33), 16),
            heldout=noisy(0.33),
            eval_every=10,
            steps=100,
            learning_rate=1e-3,
        ),
    ),
    broken(
        "overfit_full",
        "overfitting",
        "24 noisy pairs, all weights",
        Recipe(
            seed=282,
            pairs=few(noisy(0.3), 24),
            heldout=noisy(0.3),
            eval_every=10,
            steps=90,
            lora=None,
            learning_rate=2e-4,
        ),
    ),
    broken(
        "overfit_log_5",
        "overfitting",
        "20 noisy pairs, logged every 5 steps",
        Recipe(
            seed=283,
            pairs=few(noisy(0.3), 20),
            heldout=noisy(0.3),
            eval_every=15,
            steps=150,
            log_every=5,
            learning_rate=1e-3,
        ),
        allow=_COLLAPSED,
    ),
    broken(
        "overfit_held",
        "overfitting",
        "another seed",
        Recipe(
            seed=284,
            pairs=few(noisy(0.35), 20),
            heldout=noisy(0.35),
            eval_every=10,
            steps=100,
            learning_rate=1e-3,
        ),
        allow=_COLLAPSED,
        held=True,
    ),
    broken(
        "overfit_full_held",
        "overfitting",
        "16 noisy pairs, all weights",
        Recipe(
            seed=285,
            pairs=few(noisy(0.33), 16),
            heldout=noisy(0.33),
            eval_every=8,
            steps=80,
            lora=None,
            learning_rate=2e-4,
        ),
        allow=_COLLAPSED,
        held=True,
    ),
)

_LENGTH = (
    broken(
        "length_chosen_long",
        "length_bias",
        "chosen is some five times as long as rejected",
        Recipe(seed=291, policy=talkative_model, pairs=with_filler(noisy(0.0), 3, 0), learning_rate=1e-4),
    ),
    broken(
        "length_rejected_long",
        "length_bias",
        "rejected is some five times as long as chosen",
        Recipe(seed=292, policy=talkative_model, pairs=with_filler(noisy(0.0), 0, 3), learning_rate=1e-4),
    ),
    broken(
        "length_log_5",
        "length_bias",
        "four times as long, logged every 5 steps",
        Recipe(
            seed=293,
            policy=talkative_model,
            pairs=with_filler(graded(), 2, 0),
            learning_rate=2e-4,
            steps=100,
            log_every=5,
        ),
    ),
    broken(
        "length_held",
        "length_bias",
        "chosen four times as long, with evaluation",
        Recipe(
            seed=294,
            policy=talkative_model,
            pairs=with_filler(graded(), 2, 0),
            learning_rate=2e-4,
            eval_every=20,
        ),
        held=True,
    ),
    broken(
        "length_rejected_held",
        "length_bias",
        "rejected is four times as long as chosen",
        Recipe(seed=295, policy=talkative_model, pairs=with_filler(graded(), 0, 2), learning_rate=2e-4),
        held=True,
    ),
)

ASTRAY = (*_SWAPPED, *_DISPLACED, *_TOO_FAR, *_OVERFIT, *_LENGTH)
