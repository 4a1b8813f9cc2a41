"""Runs in which nothing is wrong, with all that looks odd in healthy logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.health.generator.case import Case
from tests.health.generator.faults import drifted, scale_gradients
from tests.health.generator.other_trainers import kto_log, orpo_log, reward_log, sft_log, simpo_log
from tests.health.generator.pairs import few, graded, with_filler
from tests.health.generator.tiny import base_model, eos_padded_tokenizer, new_model, talkative_model
from tests.health.generator.training import Recipe, Rows, log_of, resumed_log

OLDER_COLUMNS = (
    "loss",
    "grad_norm",
    "learning_rate",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logits/chosen",
    "logits/rejected",
    "epoch",
    "step",
)


def only(columns: tuple[str, ...], rows: Rows) -> Rows:
    """Rows with these columns and no others."""
    kept = [{name: value for name, value in row.items() if name in columns} for row in rows]
    return [row for row in kept if row.keys() - {"step", "epoch"}]


def _trained(name: str, why: str, recipe: Recipe, *, held: bool = False, told: bool = False) -> Case:
    return Case(
        name,
        lambda: log_of(recipe),
        why,
        held=held,
        loss_kind=recipe.loss if told else None,
        beta=recipe.beta if told else None,
    )


def _made(name: str, why: str, make: Callable[[], Rows], *, held: bool = False) -> Case:
    return Case(name, make, why, held=held)


_FULL = Recipe(lora=None, learning_rate=1e-4, steps=60)

_PLAIN = (
    _trained("healthy_cosine", "LoRA, cosine schedule, evaluation", Recipe(eval_every=15)),
    _trained("healthy_seed_2", "another seed", Recipe(seed=2, eval_every=20), held=True),
    _trained(
        "healthy_seed_3", "another seed, more noise in the pairs", Recipe(seed=3, pairs=graded(1.4), batch=6)
    ),
    _trained("healthy_seed_4", "another base model", Recipe(seed=4, policy=lambda: base_model(11))),
    _trained(
        "healthy_constant", "constant learning rate", Recipe(seed=5, schedule="constant", warmup_steps=0)
    ),
    _trained("healthy_linear", "linear decay to 0 at the last step", Recipe(seed=6, schedule="linear")),
    _trained(
        "healthy_long_warmup",
        "half of the run warms up",
        Recipe(seed=7, warmup_steps=40, steps=80, learning_rate=5e-4),
    ),
    _trained("healthy_no_warmup", "no warm-up", Recipe(seed=78, warmup_steps=0), held=True),
    _trained(
        "healthy_accumulation", "4 micro-batches an update", Recipe(seed=9, accumulation=4, batch=2, steps=50)
    ),
    _trained(
        "healthy_batch_1",
        "single pairs: accuracy is 0 or 1",
        Recipe(seed=77, batch=1, steps=140, learning_rate=3e-4, pairs=graded(3.0)),
    ),
    _trained(
        "healthy_batch_2",
        "two pairs a step",
        Recipe(seed=11, batch=2, steps=120, learning_rate=2e-4),
        held=True,
    ),
    _trained("healthy_batch_16", "large batches", Recipe(seed=12, batch=16, steps=40)),
    _trained("healthy_log_5", "logged every 5 steps", Recipe(seed=13, log_every=5, steps=100, eval_every=25)),
    _trained(
        "healthy_log_10",
        "logged every 10 steps",
        Recipe(seed=14, log_every=10, steps=150, eval_every=50, learning_rate=2.5e-4),
    ),
    _trained(
        "healthy_log_first",
        "logged at step 1 and every 10",
        Recipe(seed=15, log_every=10, steps=120, options={"logging_first_step": True}),
    ),
    _trained("healthy_short_5", "5 steps, as a trial has", Recipe(seed=16, steps=5, warmup_steps=1)),
    _trained(
        "healthy_short_10",
        "10 steps, as the seed's example has",
        Recipe(seed=17, steps=10, warmup_steps=1),
        held=True,
    ),
    _trained("healthy_one_row", "a single row after 10 steps", Recipe(seed=18, steps=10, log_every=10)),
    _trained("healthy_full", "all weights trained", _FULL),
    _trained(
        "healthy_full_eval",
        "all weights trained, evaluation before the first step",
        replace(_FULL, seed=19, eval_every=15, options={"eval_on_start": True}),
    ),
    _trained(
        "healthy_slow",
        "a low learning rate, learning slowly",
        Recipe(seed=20, learning_rate=3e-4, steps=150, log_every=2),
    ),
    _trained(
        "healthy_noisy_pairs",
        "annotators agree little",
        Recipe(seed=21, pairs=graded(1.2), batch=12, steps=60),
    ),
    _trained(
        "healthy_clean_short",
        "clear pairs, stopped while it learns",
        Recipe(seed=22, pairs=graded(4.0), steps=40, learning_rate=6e-4),
    ),
    _trained(
        "healthy_two_epochs",
        "each pair seen twice",
        Recipe(seed=23, pairs=few(graded(3.0), 120), steps=60, learning_rate=4e-4, eval_every=20),
    ),
)

_BETAS = (
    _trained(
        "healthy_beta_003",
        "beta 0.03: margins are small in reward and large in log-probs",
        Recipe(seed=31, beta=0.03, steps=80),
        told=True,
    ),
    _trained("healthy_beta_005", "beta 0.05", Recipe(seed=32, beta=0.05, eval_every=20), told=True),
    _trained(
        "healthy_beta_03", "beta 0.3", Recipe(seed=33, beta=0.3, learning_rate=4e-4), told=True, held=True
    ),
    _trained("healthy_beta_05", "beta 0.5", Recipe(seed=36, beta=0.5, learning_rate=4e-4, pairs=graded(3.0))),
)

_LOSSES = (
    _trained("healthy_ipo", "IPO: the loss starts at (1 / 2 beta)^2", Recipe(seed=41, loss="ipo", beta=0.3)),
    _trained(
        "healthy_ipo_told",
        "IPO, and the reader knows it",
        Recipe(seed=42, loss="ipo", beta=0.5),
        told=True,
        held=True,
    ),
    _trained("healthy_hinge", "hinge: the loss starts at 1", Recipe(seed=43, loss="hinge")),
    _trained(
        "healthy_hinge_told",
        "hinge, and the reader knows it",
        Recipe(seed=44, loss="hinge", eval_every=20),
        told=True,
    ),
    _trained(
        "healthy_robust",
        "robust DPO, label smoothing 0.1",
        Recipe(seed=45, loss="robust", options={"label_smoothing": 0.1}),
        told=True,
    ),
    _trained("healthy_apo_zero", "APO-zero: the loss starts at 1", Recipe(seed=46, loss="apo_zero")),
    _trained(
        "healthy_nca",
        "NCA: the loss starts at 2 ln 2",
        Recipe(seed=47, loss="nca_pair", learning_rate=5e-4, steps=80, batch=8),
    ),
)

_ODD = (
    _trained(
        "healthy_gradient_spikes",
        "single gradients 8 times as large, clipped, without a trace in the loss",
        Recipe(seed=51, faults=(scale_gradients(lambda step: 8.0 if step in (22, 41) else 1.0),)),
    ),
    _trained(
        "healthy_gradient_spike_late",
        "one gradient 20 times as large near the end",
        Recipe(seed=52, steps=70, faults=(scale_gradients(lambda step: 20.0 if step == 58 else 1.0),)),
        held=True,
    ),
    _trained(
        "healthy_pad_as_eos",
        "pads with its end-of-sequence token: the masks keep that out of the numbers",
        Recipe(seed=69, words=eos_padded_tokenizer, eval_every=20),
    ),
    _trained(
        "healthy_dtype_difference",
        "the reference differs by rounding: rewards of 1e-4 at step 1",
        Recipe(seed=53, reference=drifted(1e-6)),
    ),
    _trained(
        "healthy_chosen_longer",
        "chosen a third longer than rejected, as annotators like it",
        Recipe(seed=54, policy=talkative_model, pairs=with_filler(graded(), 3, 2), learning_rate=6e-4),
    ),
    _trained(
        "healthy_long_completions",
        "completions of 250 tokens",
        Recipe(seed=55, policy=talkative_model, pairs=with_filler(graded(), 3), steps=50, learning_rate=6e-4),
    ),
    _made(
        "healthy_resumed",
        "killed at step 45 and resumed from 30: steps 31 to 45 are there twice",
        lambda: resumed_log(Recipe(seed=56, steps=70), saved=30, killed=45),
    ),
    _made(
        "healthy_resumed_log_5",
        "the same, logged every 5 steps, with evaluation",
        lambda: resumed_log(Recipe(seed=57, steps=100, log_every=5, eval_every=20), saved=40, killed=65),
    ),
    _made(
        "healthy_restarted",
        "stopped after 20 steps and started anew in the same log",
        lambda: log_of(Recipe(seed=58, steps=60))[:20] + log_of(Recipe(seed=59, steps=60)),
    ),
    _made(
        "healthy_resumed_early",
        "killed at step 12 and resumed from 8, in the middle of the warm-up",
        lambda: resumed_log(Recipe(seed=60, steps=50, warmup_steps=15), saved=8, killed=12),
        held=True,
    ),
    _made(
        "healthy_truncated_start",
        "a log whose first 25 rows are lost",
        lambda: log_of(Recipe(seed=61, steps=70))[25:],
    ),
    _made("healthy_truncated_end", "a log that ends at step 18 of 60", lambda: log_of(Recipe(seed=62))[:18]),
    _made(
        "healthy_gap",
        "20 rows in the middle are lost",
        lambda: [row for row in log_of(Recipe(seed=63, steps=80)) if not 30 <= row["step"] < 50],
        held=True,
    ),
    _made(
        "healthy_only_loss",
        "nothing but the loss",
        lambda: only(("loss", "step", "epoch"), log_of(Recipe(seed=64))),
    ),
    _made(
        "healthy_only_loss_and_rate",
        "loss, learning rate and gradient, as a plain Trainer logs",
        lambda: only(("loss", "learning_rate", "grad_norm", "step", "epoch"), log_of(Recipe(seed=65))),
    ),
    _made(
        "healthy_only_accuracy",
        "accuracies and margins without a loss",
        lambda: only(("rewards/accuracies", "rewards/margins", "step"), log_of(Recipe(seed=66))),
        held=True,
    ),
    _made(
        "healthy_only_eval",
        "rows of evaluation only",
        lambda: [row for row in log_of(Recipe(seed=67, steps=80, eval_every=8)) if "eval_loss" in row],
    ),
    _made(
        "healthy_older_columns",
        "the columns of older releases",
        lambda: only(OLDER_COLUMNS, log_of(Recipe(seed=68, steps=70))),
    ),
)

_OTHER_TRAINERS = (
    _made(
        "healthy_sft",
        "SFT of the base on chosen answers",
        lambda: sft_log(Recipe(seed=71, steps=80), base_model),
    ),
    _made(
        "healthy_sft_from_scratch",
        "SFT of random weights: the loss starts at ln of the vocabulary",
        lambda: sft_log(
            Recipe(seed=72, steps=120, lora=None, learning_rate=2e-3, log_every=2), lambda: new_model(3)
        ),
    ),
    _made(
        "healthy_sft_eval",
        "SFT with evaluation, logged every 5 steps",
        lambda: sft_log(Recipe(seed=73, steps=100, log_every=5, eval_every=20), base_model),
        held=True,
    ),
    _made(
        "healthy_orpo",
        "ORPO has a loss of its own and log-odds",
        lambda: orpo_log(
            Recipe(seed=74, steps=100, pairs=graded(4.0), learning_rate=1.5e-3, options={"beta": 1.0})
        ),
    ),
    _made(
        "healthy_simpo",
        "SimPO: rewards are log-probs per token, without a reference",
        lambda: simpo_log(Recipe(seed=79, steps=80, pairs=graded(4.0), options={"beta": 2.0})),
    ),
    _made("healthy_kto", "KTO logs rewards of unpaired samples", lambda: kto_log(Recipe(seed=75, steps=60))),
    _made(
        "healthy_reward_model",
        "a reward model starts at ln 2 as well",
        lambda: reward_log(Recipe(seed=76, steps=100, pairs=graded(4.0), learning_rate=3e-3)),
    ),
)

HEALTHY = (*_PLAIN, *_BETAS, *_LOSSES, *_ODD, *_OTHER_TRAINERS)
