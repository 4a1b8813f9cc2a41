"""Runs that do not learn: no signal, no update, or nothing to learn."""

from __future__ import annotations

from dataclasses import replace

from tests.health.generator.case import NOTHING_LEARNED, UNMOVED, Case, broken
from tests.health.generator.faults import (
    frozen_adapter,
    optimizer_without_model,
    reference_is_policy,
    scale_gradients,
    sum_log_probs_in_bf16,
    truncated,
)
from tests.health.generator.healthy import OLDER_COLUMNS, only
from tests.health.generator.pairs import (
    both_ways,
    graded,
    identical,
    long_prompts,
    noisy,
    with_filler,
)
from tests.health.generator.tiny import talkative_model
from tests.health.generator.training import Recipe, log_of

_TOO_SHORT = (truncated(10),)

_EMPTY_COMPLETIONS = (
    broken(
        "empty_all",
        "empty_completions",
        "max_length cuts every completion off behind its prompt",
        Recipe(seed=101, faults=_TOO_SHORT),
        allow=UNMOVED,
    ),
    broken(
        "empty_all_batch_1",
        "empty_completions",
        "the same with single pairs and evaluation",
        Recipe(seed=102, batch=1, steps=30, eval_every=10, faults=_TOO_SHORT),
        allow=UNMOVED,
    ),
    broken(
        "empty_some",
        "empty_completions",
        "a third of the prompts is longer than max_length, single pairs a step",
        Recipe(
            seed=103,
            batch=1,
            steps=120,
            learning_rate=2e-4,
            pairs=long_prompts(0.33),
            faults=(truncated(200),),
        ),
    ),
    broken(
        "empty_log_10",
        "empty_completions",
        "all completions cut off, logged every 10 steps",
        Recipe(seed=104, steps=80, log_every=10, faults=_TOO_SHORT),
        allow=UNMOVED,
        held=True,
    ),
    broken(
        "empty_ipo",
        "empty_completions",
        "all completions cut off under IPO, whose loss then rests at (1/2 beta)^2",
        Recipe(seed=105, loss="ipo", beta=0.3, faults=_TOO_SHORT),
        allow=UNMOVED,
    ),
)

_FROZEN = (
    broken(
        "frozen_adapter",
        "adapter_frozen",
        "adapter loaded without is_trainable: gradient 0",
        Recipe(seed=111, faults=(frozen_adapter,)),
        allow=(*NOTHING_LEARNED, "grad_vanishing"),
    ),
    broken(
        "frozen_optimizer",
        "adapter_frozen",
        "the optimizer was made before the adapter: gradients, no update",
        Recipe(seed=112, faults=(optimizer_without_model,)),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "frozen_same_object",
        "adapter_frozen",
        "policy and reference are one object, all weights train",
        Recipe(seed=113, lora=None, learning_rate=5e-5, faults=(reference_is_policy,)),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "frozen_short",
        "adapter_frozen",
        "a frozen adapter, 12 steps",
        Recipe(seed=114, steps=12, warmup_steps=1, faults=(frozen_adapter,)),
        allow=(*NOTHING_LEARNED, "grad_vanishing"),
    ),
    broken(
        "frozen_log_5",
        "adapter_frozen",
        "the optimizer holds no adapter weight, logged every 5 steps",
        Recipe(seed=115, steps=80, log_every=5, eval_every=20, faults=(optimizer_without_model,)),
        allow=NOTHING_LEARNED,
        held=True,
    ),
)

_OLDER = Case(
    "frozen_older_columns",
    lambda: only(OLDER_COLUMNS, log_of(Recipe(seed=116, steps=50, faults=(frozen_adapter,)))),
    "a frozen adapter in an older release's columns",
    expect=("adapter_frozen",),
    allow=(*NOTHING_LEARNED, "grad_vanishing"),
)

_BF16 = Recipe(
    pairs=with_filler(graded(), 5),
    batch=1,
    steps=60,
    learning_rate=2e-6,
    options={"max_length": 1024},
    faults=(sum_log_probs_in_bf16,),
)

_BF16_LEARNS = Recipe(
    policy=talkative_model, pairs=with_filler(graded(), 3), batch=2, steps=80, faults=(sum_log_probs_in_bf16,)
)

_ROUNDED = (
    broken(
        "bf16_dead",
        "bf16_rounding",
        "log-probs in bf16, a learning rate that never moves one by its grid",
        replace(_BF16, seed=121),
        allow=NOTHING_LEARNED,
        exact=True,
    ),
    broken(
        "bf16_dead_batch_2",
        "bf16_rounding",
        "the same, two pairs a step",
        replace(_BF16, seed=122, batch=2),
        allow=NOTHING_LEARNED,
        exact=True,
    ),
    broken(
        "bf16_dead_beta_001",
        "bf16_rounding",
        "the same at beta 0.01, which the reader knows",
        replace(_BF16, seed=123, beta=0.01),
        allow=NOTHING_LEARNED,
        exact=True,
        told=True,
    ),
    broken(
        "bf16_dead_older_columns",
        "bf16_rounding",
        "another seed",
        replace(_BF16, seed=124, steps=40),
        allow=NOTHING_LEARNED,
        exact=True,
        held=True,
    ),
    broken(
        "bf16_but_learns",
        "bf16_rounding",
        "log-probs in bf16, shorter completions: the margins are larger than the grid",
        replace(_BF16_LEARNS, seed=125),
        exact=True,
        info=True,
    ),
    broken(
        "bf16_but_learns_batch_4",
        "bf16_rounding",
        "the same, four pairs a step: the mean's grid is finer",
        replace(_BF16_LEARNS, seed=126, batch=4, pairs=with_filler(graded(), 4)),
        exact=True,
        info=True,
        held=True,
    ),
)

_FLAT = (
    broken(
        "flat_low_rate",
        "loss_not_falling",
        "learning rate a thousandth of what it should be",
        Recipe(seed=131, learning_rate=8e-7, steps=80),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "flat_coin_flips",
        "loss_not_falling",
        "labels are coin flips, each pair seen once",
        Recipe(seed=132, pairs=noisy(0.5), learning_rate=2e-4, batch=8, steps=70),
        allow=NOTHING_LEARNED,
    ),
    broken(
        "flat_identical",
        "loss_not_falling",
        "chosen and rejected are the same text",
        Recipe(seed=133, pairs=identical, steps=70),
        allow=UNMOVED,
    ),
    broken(
        "flat_full_low_rate",
        "loss_not_falling",
        "all weights at a learning rate of 1e-9, evaluation every 20",
        Recipe(seed=134, lora=None, learning_rate=1e-9, steps=80, eval_every=20),
        allow=UNMOVED,
        held=True,
    ),
    broken(
        "flat_both_ways",
        "loss_not_falling",
        "each pair is there both ways",
        Recipe(seed=135, pairs=both_ways, steps=80, learning_rate=3e-4, batch=6),
        allow=(*NOTHING_LEARNED, "labels_swapped"),
    ),
    broken(
        "flat_low_rate_held",
        "loss_not_falling",
        "a learning rate of 1e-6 with two pairs a step",
        Recipe(seed=136, learning_rate=1e-6, batch=2, steps=100),
        allow=NOTHING_LEARNED,
        held=True,
    ),
)

_VANISHING = (
    broken(
        "vanishing_scaled_loss",
        "grad_vanishing",
        "the loss scale is divided out twice: gradients of 1e-9",
        Recipe(seed=141, steps=70, faults=(scale_gradients(lambda step: 1e-9),)),
        allow=UNMOVED,
    ),
    broken(
        "vanishing_late",
        "grad_vanishing",
        "gradients are 0 from step 30 on, as when fp16 underflows",
        Recipe(seed=142, steps=80, faults=(scale_gradients(lambda step: 1.0 if step < 30 else 0.0),)),
        allow=("stalled",),
    ),
    broken(
        "vanishing_decay",
        "grad_vanishing",
        "gradients shrink by a fifth a step",
        Recipe(seed=143, steps=100, faults=(scale_gradients(lambda step: 0.8**step),)),
        allow=("stalled", *NOTHING_LEARNED),
    ),
    broken(
        "vanishing_beta",
        "grad_vanishing",
        "beta 1e-7: the gradient carries it as a factor",
        Recipe(seed=144, beta=1e-7, steps=70),
        allow=NOTHING_LEARNED,
        told=True,
        held=True,
    ),
    broken(
        "vanishing_log_5",
        "grad_vanishing",
        "gradients of 1e-10, logged every 5 steps",
        Recipe(seed=145, steps=100, log_every=5, faults=(scale_gradients(lambda step: 1e-10),)),
        allow=UNMOVED,
    ),
    broken(
        "vanishing_late_held",
        "grad_vanishing",
        "gradients are 0 from step 15 on",
        Recipe(seed=146, steps=60, faults=(scale_gradients(lambda step: 1.0 if step < 15 else 0.0),)),
        allow=("stalled", *NOTHING_LEARNED),
        held=True,
    ),
)

STILL = (*_EMPTY_COMPLETIONS, *_FROZEN, _OLDER, *_ROUNDED, *_FLAT, *_VANISHING)
