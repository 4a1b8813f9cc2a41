"""Logs that no tiny model on a CPU can make, written down after reports of real runs.

The shape is the report's, the numbers are ours: what was constant there is constant here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from tests.health.generator.case import Case
from tests.health.generator.training import Rows

NAN = math.nan
_NOTHING = ("loss_not_falling", "accuracy_low", "margin_small")

_SEED_ROW = {
    "rewards/chosen": 0.0, "rewards/rejected": 0.0, "rewards/accuracies": 0.0, "rewards/margins": 0.0,
    "logits/chosen": 0.1, "epoch": 0.0, "step": 2,
}  # fmt: skip


def _seed_bf16() -> Rows:
    return [_SEED_ROW | {"loss": 0.6914, "grad_norm": 3.3615094645372428,
        "learning_rate": 8.888888888888888e-06,
                         "logps/chosen": -536.0, "logps/rejected": -532.0,
                         "logits/rejected": 0.0}]  # fmt: skip


def _seed_empty() -> Rows:
    return [_SEED_ROW | {"loss": 0.6931, "grad_norm": 0.0, "learning_rate": 8.888888888888888e-07,
                         "logps/chosen": 0.0, "logps/rejected": 0.0, "logits/rejected": NAN}]  # fmt: skip


def _margin_rows(rng: random.Random, margins: Sequence[float], *, every: int, rate: float,
        chosen_share: float,
                 length: float, noise: float = 0.05) -> Rows:  # fmt: skip
    """Rows of a DPO run whose mean margins are given.

    `chosen_share` is the part of the margin that the chosen reward rises by (negative where it falls),
    `length` the log-prob of a completion at the start, beta 0.1.
    """
    rows = []
    for at, margin in enumerate(margins):
        shown = margin + rng.gauss(0, noise * (1 if margin else 0))
        chosen = shown * chosen_share + rng.gauss(0, noise / 4 if margin else 0)
        base = length * rng.uniform(0.94, 1.06)
        # The mean loss over pairs is above that of the mean margin: pairs spread as far as margins go.
        spread = 0.125 * 0.8 * shown * shown / (1 + abs(shown))
        rows.append(
            {
                "loss": math.log1p(math.exp(-shown)) + spread,
                "grad_norm": rng.uniform(3.0, 6.0),
                "learning_rate": rate * (1 - at / len(margins)),
                "rewards/chosen": chosen,
                "rewards/rejected": chosen - shown,
                "rewards/accuracies": min(
                    1.0, max(0.0, 0.5 + 0.3 * math.tanh(shown * 2) + rng.gauss(0, 0.03))
                ),
                "rewards/margins": shown,
                "logps/chosen": base + chosen * 10,
                "logps/rejected": base * 0.92 + (chosen - shown) * 10,
                "logits/chosen": -2.4 + rng.gauss(0, 0.05),
                "logits/rejected": -2.35 + rng.gauss(0, 0.05),
                "epoch": round((at + 1) * every / 480, 2),
                "step": (at + 1) * every,
            }
        )
    return rows


def _with(rows: Rows, **changes: Any) -> Rows:
    named = {name.replace("__", "/"): value for name, value in changes.items()}
    return [row | named for row in rows]


def _growing(count: int, top: float) -> list[float]:
    return [top * (1 - math.exp(-3 * at / count)) for at in range(1, count + 1)]


def _nan_logits() -> Rows:
    rows = _margin_rows(
        random.Random(1), _growing(30, 0.7), every=10, rate=5e-5, chosen_share=-0.3, length=-255.0
    )
    return _with(rows, logits__chosen=NAN, logits__rejected=NAN)


def _nan_rewards() -> Rows:
    rows = _margin_rows(
        random.Random(2), _growing(24, 0.4), every=1, rate=1e-5, chosen_share=0.2, length=-180.0
    )
    changed = _with(rows[1:], rewards__chosen=NAN, rewards__rejected=NAN, rewards__margins=NAN,
                    rewards__accuracies=0.0, logps__chosen=NAN, logps__rejected=NAN)  # fmt: skip
    first = rows[0] | {"loss": 0.6931, "rewards/chosen": 0.0, "rewards/rejected": 0.0, "rewards/margins": 0.0}
    return [first, *changed]


def _zero_loss_nan_gradient() -> Rows:
    return [
        {
            "loss": 0.0,
            "grad_norm": NAN,
            "learning_rate": 2e-4 * min(1.0, step / 10),
            "epoch": step / 100,
            "step": step,
        }
        for step in range(1, 41)
    ]


def _nan_from_the_start() -> Rows:
    rows = _margin_rows(random.Random(3), [0.0] * 12, every=5, rate=5e-6, chosen_share=0.0, length=-300.0)
    names = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen",
             "logps/rejected", "logits/chosen", "logits/rejected")  # fmt: skip
    return [row | dict.fromkeys(names, NAN) | {"rewards/accuracies": 0.0} for row in rows]


def _frozen() -> Rows:
    rows = _margin_rows(random.Random(4), [0.0] * 24, every=1, rate=1.4e-5, chosen_share=0.0, length=-76.0)
    still = _with(rows, loss=0.6931, rewards__accuracies=0.0)
    return [{name: value for name, value in row.items() if name != "grad_norm"} for row in still]


def _other_reference() -> Rows:
    rng = random.Random(5)
    rows = []
    for step in range(1, 61):
        margin = rng.gauss(0, 4) if step < 6 else 14 + rng.gauss(0, 2)
        chosen = (9.0 if step < 6 else 3.0) + rng.gauss(0, 1)
        rows.append(
            {
                "loss": math.log1p(math.exp(-margin)),
                "learning_rate": 1e-4 * min(1.0, step / 35),
                "rewards/chosen": chosen,
                "rewards/rejected": chosen - margin,
                "rewards/accuracies": float(margin > 0),
                "rewards/margins": margin,
                "logps/chosen": rng.uniform(-500, -370),
                "logps/rejected": rng.uniform(-330, -220) - max(0.0, margin) * 10,
                "logits/chosen": rng.gauss(-2.0, 0.3),
                "logits/rejected": rng.gauss(-2.1, 0.3),
                "epoch": round(step / 157, 2),
                "step": step,
            }
        )
    return rows


def _thirteen() -> Rows:
    rng = random.Random(6)
    return [
        {"loss": 13.2 - step / 400 + rng.gauss(0, 0.15), "grad_norm": rng.uniform(4, 9), "epoch": step / 500,
         "learning_rate": 2e-5, "step": step}
        for step in range(1, 81)
    ]  # fmt: skip


def _thirteen_dpo() -> Rows:
    rng = random.Random(7)
    rows = []
    for step in range(1, 41):
        chosen, rejected = rng.gauss(-21, 2), rng.gauss(-8, 2)
        rows.append(
            {
                "loss": rejected - chosen,
                "grad_norm": rng.uniform(40, 70),
                "learning_rate": 5e-7 * min(1.0, step / 10),
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/accuracies": 0.0,
                "rewards/margins": chosen - rejected,
                "logps/chosen": rng.gauss(-960, 20),
                "logps/rejected": rng.gauss(-840, 20),
                "epoch": round(step / 300, 3),
                "step": step,
            }
        )
    return rows


def _long_completions_in_bf16() -> Rows:
    rng = random.Random(8)
    rows = _margin_rows(rng, [0.0] * 30, every=1, rate=5e-7, chosen_share=0.0, length=-5600.0)
    return [
        row | {"loss": 0.69140625, "grad_norm": 0.0, "rewards/accuracies": 0.0,
               "logps/chosen": -32.0 * rng.randrange(150, 220), "logps/rejected": -32.0 * rng.randrange(150,
               220)}
        for row in rows
    ]  # fmt: skip


def _scheduler_never_stepped() -> Rows:
    rows = _margin_rows(random.Random(9), [0.0] * 60, every=1, rate=0.0, chosen_share=0.0, length=-210.0)
    return _with(rows, loss=0.6931, rewards__accuracies=0.0, learning_rate=0)


def _both_rewards_fall() -> Rows:
    rows = _margin_rows(
        random.Random(10), _growing(48, 1.2), every=10, rate=5e-7, chosen_share=-0.7, length=-280.0
    )
    evaluations = _margin_rows(
        random.Random(11), _growing(4, 1.1), every=120, rate=0, chosen_share=-0.7, length=-281.0
    )
    for row in evaluations:
        renamed = {
            f"eval_{name}": value for name, value in row.items() if name not in ("learning_rate", "grad_norm")
        }
        at = next(
            i for i, train in enumerate(rows) if train.get("learning_rate") and train["step"] == row["step"]
        )
        rows.insert(at + 1, {**renamed, "epoch": renamed.pop("eval_epoch"), "step": renamed.pop("eval_step")})
    return [
        {name: value for name, value in row.items() if name not in ("eval_epoch", "eval_step")}
        for row in rows
    ]


def _no_gradient_logged() -> Rows:
    rows = _margin_rows(
        random.Random(12), _growing(40, 1.3), every=5, rate=5e-6, chosen_share=0.4, length=-90.0
    )
    return _with(rows, grad_norm=0.0)


def _no_gradient_slow() -> Rows:
    rows = _margin_rows(
        random.Random(16), _growing(90, 0.6), every=1, rate=2e-6, chosen_share=-0.2, length=-310.0
    )
    unmoved = dict.fromkeys(
        ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"), 0.0
    )
    return _with([rows[0] | unmoved | {"loss": math.log(2)}, *rows[1:]], grad_norm=0.0)


def _pretraining() -> Rows:
    rng = random.Random(13)
    return [
        {"loss": 3.4 + 7.55 * math.exp(-step / 260) + rng.gauss(0, 0.04), "grad_norm": rng.uniform(0.4, 1.5),
         "learning_rate": 6e-4 * min(1.0, step / 200), "epoch": step / 10_000, "step": step}
        for step in range(1, 1200, 10)
    ]  # fmt: skip


def _ppo() -> Rows:
    rng = random.Random(14)
    return [
        {
            "eps": rng.randint(0, 3),
            "objective/kl": 12 * (1 - math.exp(-step / 40)) + rng.gauss(0, 0.6),
            "objective/entropy": 55 + rng.gauss(0, 4),
            "objective/non_score_reward": -0.6 * (1 - math.exp(-step / 40)),
            "objective/rlhf_reward": -0.4 + step / 60 + rng.gauss(0, 0.3),
            "objective/scores": 0.2 + step / 50 + rng.gauss(0, 0.3),
            "policy/approxkl_avg": abs(rng.gauss(0.03, 0.01)),
            "policy/clipfrac_avg": abs(rng.gauss(0.1, 0.03)),
            "loss/policy_avg": rng.gauss(-0.03, 0.02),
            "loss/value_avg": abs(rng.gauss(0.2, 0.06)),
            "val/ratio": rng.gauss(1.0, 0.02),
            "lr": 3e-6 * (1 - step / 121),
            "episode": step * 64,
            "epoch": round(step / 120, 3),
            "step": step,
        }
        for step in range(1, 121)
    ]


def _grpo() -> Rows:
    rng = random.Random(15)
    return [
        {
            "loss": rng.gauss(0.0, 0.01),
            "grad_norm": abs(rng.gauss(0.4, 0.1)),
            "learning_rate": 1e-6 * (1 - step / 81),
            "completions/mean_length": 180 + step + rng.gauss(0, 15),
            "completions/clipped_ratio": max(0.0, rng.gauss(0.1, 0.05)),
            "rewards/accuracy_reward/mean": min(1.0, 0.2 + step / 140 + rng.gauss(0, 0.07)),
            "rewards/accuracy_reward/std": abs(rng.gauss(0.4, 0.05)),
            "reward": min(1.0, 0.2 + step / 140 + rng.gauss(0, 0.07)),
            "reward_std": abs(rng.gauss(0.3, 0.05)),
            "frac_reward_zero_std": max(0.0, rng.gauss(0.2, 0.1)),
            "kl": abs(rng.gauss(0.0004 * step, 0.001)),
            "clip_ratio/region_mean": 0.0,
            "epoch": round(step / 80, 3),
            "step": step,
        }
        for step in range(1, 81)
    ]


def _healthy(name: str, make: Any, why: str, *, held: bool = False) -> Case:
    return Case(name, make, why, held=held, written=True)


def _broken(
    name: str, code: str, make: Any, why: str, *, allow: tuple[str, ...] = (), held: bool = False
) -> Case:
    return Case(
        name, make, why, expect=(code,), allow=allow, held=held, written=True, exact=code == "bf16_rounding"
    )


WRITTEN = (
    _healthy("healthy_both_rewards_fall", _both_rewards_fall,
             "7B models after SFT on the chosen: both rewards fall, margins rise (trl#800), a caution"),
    _healthy("healthy_no_gradient_logged", _no_gradient_logged,
             "engines that log a grad_norm of 0 while the run learns (trl#1778)"),
    _healthy("healthy_no_gradient_slow", _no_gradient_slow,
             "the same, learning slowly, logged at every step", held=True),
    _healthy("healthy_pretraining", _pretraining,
        "pretraining of a vocabulary of 50,257 starts at ln of it, 10.8"),
    _healthy("healthy_ppo", _ppo, "the columns of TRL's PPO, its scores rising"),
    _healthy("healthy_grpo", _grpo, "the columns of TRL's GRPO, whose loss hovers around 0", held=True),
    _broken("seed_bf16", "bf16_rounding", _seed_bf16,
            "the seed's ZeRO-3 line: 0.6914, -536 and -532 are numbers of bf16's grid"),
    _broken("seed_empty", "empty_completions", _seed_empty,
            "the seed's FSDP line: log-probs 0, gradient 0, loss ln 2, logits of no positions",
            allow=("nonfinite",)),
    _broken("nan_logits_only", "nonfinite", _nan_logits,
            "after trl#2435: logits are NaN, loss and rewards are fine"),
    _broken("nan_rewards", "nonfinite", _nan_rewards,
            "after trl#878: rewards are NaN from step 2 on in fp16, the loss is finite"),
    _broken("nan_gradient_zero_loss", "nonfinite", _zero_loss_nan_gradient,
            "after axolotl#2754 and accelerate#3983: loss 0 and a gradient of NaN", allow=("grad_vanishing",),
            held=True),
    _broken("nan_from_the_start", "nonfinite", _nan_from_the_start,
        "after LlamaFactory#7531: all is NaN at once"),
    _broken("frozen_written", "adapter_frozen", _frozen,
            "after trl#1311: rewards exactly 0 beside log-probs that vary, no gradient logged",
            allow=_NOTHING),
    _broken("reference_far_off", "reference_mismatch", _other_reference,
            "after trl#1236: a 1.8B reference for a 14B policy, rewards near 10 at step 1, then a loss of 0",
            allow=("over_optimisation", "loss_spike")),
    _broken("corrupted_thirteen", "base_corrupted", _thirteen,
            "after bitsandbytes#1451: 8-bit base under ZeRO-3, loss near 13 and staying there"),
    _broken("corrupted_thirteen_dpo", "base_corrupted", _thirteen_dpo,
            "a DPO loss of 13 where 0.69 is expected: the policy's base lost its quantisation state",
            allow=("reference_mismatch", "labels_swapped", "loss_not_falling", "accuracy_low")),
    _broken("bf16_long_completions", "bf16_rounding", _long_completions_in_bf16,
            "completions of thousands of tokens: steps of 32, loss 0.6914, rewards and gradient 0",
            allow=(*_NOTHING, "grad_vanishing")),
    _broken("rate_zero_overflow", "lr_zero", _scheduler_never_stepped,
            "fp16 under DeepSpeed overflows at every step: the schedule never moves and the rate logged is 0",
            allow=_NOTHING),
)  # fmt: skip
