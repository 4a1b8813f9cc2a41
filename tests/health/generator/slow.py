"""Runs that learn too little: a rate of 0, tiny margins, labels that are coin flips, a stop half-way."""

from __future__ import annotations

from tests.health.generator.case import NOTHING_LEARNED, broken
from tests.health.generator.faults import (
    skipped_updates,
)
from tests.health.generator.pairs import (
    noisy,
)
from tests.health.generator.tiny import base_model
from tests.health.generator.training import Recipe

_RATE_ZERO = (
    broken(
        "rate_zero",
        "lr_zero",
        "a learning rate of 0 all along",
        Recipe(seed=151, learning_rate=0.0, steps=70),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "rate_zero_half_way",
        "lr_zero",
        "the schedule counts micro-batches and is at 0 half-way",
        Recipe(seed=152, rate=lambda step: max(0.0, 1 - step / 35), steps=80),
        allow=("stalled",),
    ),
    broken(
        "rate_zero_after_warmup",
        "lr_zero",
        "falls to 0 behind the warm-up",
        Recipe(seed=153, rate=lambda step: step / 8 if step < 8 else 0.0, steps=60),
        allow=(*NOTHING_LEARNED, "stalled"),
    ),
    broken(
        "rate_zero_two_thirds",
        "lr_zero",
        "0 from step 50 of 80 on",
        Recipe(seed=154, rate=lambda step: max(0.0, 1 - step / 50), steps=80, batch=6),
        allow=("stalled",),
        held=True,
    ),
    broken(
        "rate_zero_log_10",
        "lr_zero",
        "0 half-way, logged every 10 steps",
        Recipe(seed=155, rate=lambda step: max(0.0, 1 - step / 60), steps=140, log_every=10, eval_every=20),
        allow=("stalled",),
    ),
    broken(
        "rate_zero_held",
        "lr_zero",
        "a learning rate of 0 all along, logged every 2 steps",
        Recipe(seed=156, learning_rate=0.0, steps=80, log_every=2),
        allow=NOTHING_LEARNED,
        held=True,
    ),
)

_SMALL_MARGINS = (
    broken(
        "margin_beta_0001",
        "margin_small",
        "beta 0.001: accuracy is fine, margins stay near 0",
        Recipe(seed=161, beta=0.001, learning_rate=4e-4, steps=80),
        allow=("loss_not_falling",),
    ),
    broken(
        "margin_beta_0002_told",
        "margin_small",
        "beta 0.002, which the reader knows",
        Recipe(seed=162, beta=0.002, learning_rate=3e-4, steps=90, eval_every=30),
        allow=("loss_not_falling",),
        told=True,
    ),
    broken(
        "margin_low_rate",
        "margin_small",
        "a learning rate at which the margin reaches 0.02",
        Recipe(seed=163, learning_rate=6e-5, steps=80, batch=6),
        allow=("loss_not_falling",),
    ),
    broken(
        "margin_beta_0001_held",
        "margin_small",
        "beta 0.001, another seed, logged every 2 steps",
        Recipe(seed=164, beta=0.001, learning_rate=4e-4, steps=100, log_every=2),
        allow=("loss_not_falling",),
        held=True,
    ),
    broken(
        "margin_low_rate_held",
        "margin_small",
        "a learning rate at which margins reach some 0.03, all weights",
        Recipe(seed=165, lora=None, learning_rate=4e-6, steps=80, batch=6),
        allow=("loss_not_falling",),
        held=True,
    ),
)

_COIN_FLIPS = (
    broken(
        "accuracy_coin_flips",
        "accuracy_low",
        "labels are coin flips at a learning rate that moves the loss",
        Recipe(seed=171, pairs=noisy(0.5), learning_rate=1e-3, batch=8, steps=80),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "accuracy_nearly_coin_flips",
        "accuracy_low",
        "47 % of the labels are wrong",
        Recipe(seed=172, pairs=noisy(0.47), learning_rate=1e-3, batch=8, steps=80, eval_every=20),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "accuracy_log_5",
        "accuracy_low",
        "coin flips, logged every 5 steps",
        Recipe(seed=173, pairs=noisy(0.5), learning_rate=8e-4, steps=140, log_every=5),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "accuracy_full",
        "accuracy_low",
        "coin flips, all weights trained",
        Recipe(seed=174, pairs=noisy(0.5), lora=None, learning_rate=2e-4, batch=8, steps=70),
        allow=NOTHING_LEARNED,
        held=True,
    ),
    broken(
        "accuracy_held_eval",
        "accuracy_low",
        "coin flips with evaluation, another base",
        Recipe(
            seed=175,
            pairs=noisy(0.5),
            policy=lambda: base_model(11),
            learning_rate=1e-3,
            batch=6,
            steps=90,
            eval_every=30,
        ),
        allow=NOTHING_LEARNED,
        held=True,
    ),
)

_STALLED = (
    broken(
        "stalled_rate_decayed",
        "stalled",
        "the rate decays tenfold every 8 steps, far from an end",
        Recipe(
            seed=181,
            rate=lambda step: 10 ** -(max(0, step - 10) / 8),
            steps=140,
            batch=6,
        ),
        allow=("margin_small",),
    ),
    broken(
        "stalled_skipped_updates",
        "stalled",
        "from step 14 on every update is skipped, at a constant rate",
        Recipe(
            seed=182,
            schedule="constant",
            steps=140,
            batch=8,
            faults=(skipped_updates(lambda step: step >= 14),),
        ),
    ),
    broken(
        "stalled_skipped_log_2",
        "stalled",
        "the same from step 15 on, logged every 2 steps with evaluation",
        Recipe(
            seed=183,
            schedule="constant",
            steps=150,
            batch=8,
            log_every=2,
            eval_every=30,
            faults=(skipped_updates(lambda step: step >= 15),),
        ),
    ),
    broken(
        "stalled_skipped_another_base",
        "stalled",
        "from step 16 on every update is skipped, another base",
        Recipe(
            seed=914,
            policy=lambda: base_model(15),
            schedule="constant",
            steps=150,
            batch=8,
            faults=(skipped_updates(lambda step: step >= 16),),
        ),
    ),
    broken(
        "stalled_held",
        "stalled",
        "all weights; the rate falls to a thousandth after a tenth of the run",
        Recipe(
            seed=184,
            lora=None,
            learning_rate=5e-5,
            rate=lambda step: 1.0 if step < 13 else 1e-3,
            steps=130,
        ),
        allow=("margin_small",),
        held=True,
    ),
    broken(
        "stalled_skipped_held",
        "stalled",
        "from step 13 on every update is skipped, another base",
        Recipe(
            seed=185,
            policy=lambda: base_model(11),
            schedule="constant",
            steps=120,
            batch=8,
            faults=(skipped_updates(lambda step: step >= 13),),
        ),
        held=True,
    ),
)

SLOW = (*_RATE_ZERO, *_SMALL_MARGINS, *_COIN_FLIPS, *_STALLED)
