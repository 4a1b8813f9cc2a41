"""Runs whose numbers break: overflows, a wrong reference or base, spikes, gradients that explode."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.health.generator.case import broken
from tests.health.generator.faults import (
    MARK,
    drifted,
    lost_scales,
    overflow_in_half,
    poisoned_model,
    scale_gradients,
    skipped_updates,
    with_dropout,
)
from tests.health.generator.other_trainers import sft_log
from tests.health.generator.pairs import (
    graded,
    noisy,
    swapped_between,
    with_mark,
)
from tests.health.generator.tiny import base_model
from tests.health.generator.training import Recipe


def _later(factor: float, first: int, last: int) -> Callable[[int], float]:
    return lambda step: factor if first <= step < last else 1.0


_NONFINITE = (
    broken(
        "nan_half_overflow",
        "nonfinite",
        "hidden states outgrow fp16 as they are trained",
        Recipe(seed=201, lora=None, learning_rate=2e-4, faults=(overflow_in_half(13_000.0),)),
    ),
    broken(
        "nan_one_pair",
        "nonfinite",
        "one pair holds a token whose embedding is NaN; all is NaN from then on",
        Recipe(seed=202, policy=poisoned_model, pairs=with_mark(graded(), MARK, 130)),
    ),
    broken(
        "nan_eval_only",
        "nonfinite",
        "one pair of evaluation is NaN, training is not",
        Recipe(seed=203, policy=poisoned_model, heldout=with_mark(graded(), MARK, 3), eval_every=10),
    ),
    broken(
        "inf_gradient_once",
        "nonfinite",
        "one gradient is infinite and its update skipped, as by a loss scaler",
        Recipe(seed=204, faults=(skipped_updates(lambda step: step == 33, math.inf),)),
        held=True,
    ),
)

_MISMATCH = (
    broken(
        "reference_other_base",
        "reference_mismatch",
        "the reference is another model",
        Recipe(seed=211, reference=lambda: base_model(11)),
    ),
    broken(
        "reference_drifted",
        "reference_mismatch",
        "the reference is an older checkpoint of the policy",
        Recipe(seed=212, reference=drifted(1e-2)),
    ),
    broken(
        "reference_dropout",
        "reference_mismatch",
        "dropout is on in the policy and off in the reference",
        Recipe(
            seed=213,
            lora=None,
            learning_rate=1e-4,
            policy=with_dropout(0.1),
            options={"disable_dropout": False},
        ),
    ),
    broken(
        "reference_eval",
        "reference_mismatch",
        "seen in an evaluation before the first step, rows every 10 steps",
        Recipe(
            seed=214,
            reference=drifted(2e-2),
            log_every=10,
            steps=100,
            eval_every=25,
            options={"eval_on_start": True},
        ),
    ),
    broken(
        "reference_slightly_off",
        "reference_mismatch",
        "a reference whose rewards are some 0.05 off",
        Recipe(seed=215, reference=drifted(5e-3)),
        held=True,
    ),
    broken(
        "reference_other_base_held",
        "reference_mismatch",
        "the reference is another model, four micro-batches an update",
        Recipe(
            seed=216, policy=lambda: base_model(11), reference=base_model, batch=2, accumulation=4, steps=40
        ),
        held=True,
    ),
)

_CORRUPTED = (
    broken(
        "corrupted_sft",
        "base_corrupted",
        "SFT of a base whose layers lost their scales",
        lambda: sft_log(Recipe(seed=231, steps=60, learning_rate=1e-4), lost_scales(12.0, 4.0)),
    ),
    broken(
        "corrupted_dpo",
        "base_corrupted",
        "the policy's base lost its scales, the reference did not",
        Recipe(seed=232, policy=lost_scales(8.0, 5.0), reference=base_model, learning_rate=1e-5, steps=50),
        allow=("reference_mismatch", "loss_not_falling", "accuracy_low"),
    ),
    broken(
        "corrupted_sft_eval",
        "base_corrupted",
        "the same, another factor, with evaluation",
        lambda: sft_log(
            Recipe(seed=233, steps=80, learning_rate=1e-4, log_every=5, eval_every=20), lost_scales(4.0, 6.0)
        ),
    ),
    broken(
        "corrupted_sft_full",
        "base_corrupted",
        "SFT of all weights",
        lambda: sft_log(Recipe(seed=234, lora=None, learning_rate=1e-6, steps=40), lost_scales(20.0, 3.7)),
        allow=("grad_exploding",),
        held=True,
    ),
    broken(
        "corrupted_dpo_held",
        "base_corrupted",
        "a policy without its scales, its reference whole",
        Recipe(seed=235, policy=lost_scales(15.0, 6.0), reference=base_model, learning_rate=1e-5, steps=40),
        allow=("reference_mismatch", "loss_not_falling", "accuracy_low"),
        held=True,
    ),
)

_IN_ORDER = {"train_sampling_strategy": "sequential"}

_WRECKED = ("likelihood_displacement", "loss_not_falling")
"""What a policy shows that a jump of the learning rate has thrown far off."""

_SPIKES = (
    broken(
        "spike_rate",
        "loss_spike",
        "the learning rate jumps thirtyfold for three updates",
        Recipe(seed=241, beta=0.5, rate=_later(30.0, 40, 43), steps=80),
        allow=_WRECKED,
    ),
    broken(
        "spike_rate_another_base",
        "loss_spike",
        "the learning rate jumps fortyfold for two updates, another base",
        Recipe(seed=903, policy=lambda: base_model(14), beta=0.5, rate=_later(40.0, 40, 42), steps=90),
        allow=_WRECKED,
    ),
    broken(
        "spike_bad_data",
        "loss_spike",
        "a shard of 24 pairs is the wrong way round",
        Recipe(seed=242, pairs=swapped_between(noisy(0.0), 200, 224), steps=80, options=_IN_ORDER),
    ),
    broken(
        "spike_full",
        "loss_spike",
        "all weights, the learning rate jumps fortyfold twice",
        Recipe(seed=243, beta=0.5, lora=None, learning_rate=5e-5, rate=_later(40.0, 45, 47), steps=80),
        allow=_WRECKED,
    ),
    broken(
        "spike_data_late",
        "loss_spike",
        "wrong pairs near the end",
        Recipe(seed=244, pairs=swapped_between(noisy(0.0), 300, 320), steps=100, options=_IN_ORDER),
        held=True,
    ),
    broken(
        "spike_rate_held",
        "loss_spike",
        "the learning rate jumps fortyfold for two updates, another base",
        Recipe(seed=245, policy=lambda: base_model(11), beta=0.5, rate=_later(40.0, 50, 52), steps=90),
        allow=_WRECKED,
        held=True,
    ),
)

_EXPLODING = (
    broken(
        "exploding_growth",
        "grad_exploding",
        "gradients grow by a sixth a step, clipped, until they overflow",
        Recipe(seed=252, steps=70, faults=(scale_gradients(lambda step: 1.17**step),)),
    ),
    broken(
        "exploding_outliers",
        "grad_exploding",
        "every third batch has gradients hundreds of times as large",
        Recipe(
            seed=253,
            steps=70,
            faults=(scale_gradients(lambda step: 300.0 if step > 15 and step % 3 == 0 else 1.0),),
        ),
    ),
    broken(
        "exploding_beta",
        "grad_exploding",
        "beta 20: the gradient carries it as a factor",
        Recipe(seed=254, beta=20.0, lora=None, learning_rate=1e-4),
        told=True,
        allow=("loss_spike", "loss_not_falling"),
    ),
    broken(
        "exploding_log_5",
        "grad_exploding",
        "gradients grow by an eighth a step, logged every 5 steps",
        Recipe(seed=256, steps=100, log_every=5, faults=(scale_gradients(lambda step: 1.12**step),)),
    ),
    broken(
        "exploding_held",
        "grad_exploding",
        "gradients 500 times as large from step 20 on",
        Recipe(seed=255, faults=(scale_gradients(_later(500.0, 20, 999)),)),
        held=True,
    ),
    broken(
        "exploding_growth_held",
        "grad_exploding",
        "gradients grow by a fifth a step from step 20 on",
        Recipe(seed=257, steps=70, faults=(scale_gradients(lambda step: 1.2 ** max(0, step - 20)),)),
        held=True,
    ),
)

UNSTABLE = (*_NONFINITE, *_MISMATCH, *_CORRUPTED, *_SPIKES, *_EXPLODING)
