"""Names that other programs give to steps and metrics, and TRL's for the same."""

from __future__ import annotations

import re

from dpo_telemetry.text import printable

MAX_NAME_CHARS = 200
"""Longer names are no metrics."""

STEP_NAMES = (
    "step", "global_step", "train/global_step", "trainer/global_step", "current_steps",
    "global_step/max_steps", "iteration", "_step",
)  # fmt: skip
"""What a row calls its step, the most certain first: `_step` counts W&B's calls, not updates."""

SUMMARY_NAMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
"""A row that has one of them sums a run up and is no step."""

_SAME: dict[str, str] = {
    "lr": "learning_rate", "train_lr": "learning_rate", "train_loss": "loss", "training loss": "loss",
    "val_loss": "eval_loss", "val/loss": "eval_loss", "valid_loss": "eval_loss", "valid/loss": "eval_loss",
    "validation_loss": "eval_loss", "validation/loss": "eval_loss", "validation loss": "eval_loss",
}  # fmt: skip

_NO_METRICS = frozenset(
    {
        *STEP_NAMES, *SUMMARY_NAMES, "total_flos", "total_steps", "max_steps", "percentage", "elapsed_time",
        "remaining_time", "wall time", "wall_time", "relative time (wall)", "relative time (process)",
        "_timestamp", "_runtime", "timestamp", "time", "",
    }
)  # fmt: skip

_SHOWS_TRAINING = re.compile(
    r"(?:(?:eval|train)_)?(?:(?:[\w-]+[_/])?loss$|loss/|grad_norm$|rewards?$|rewards[/_]|reward[/_]|logps/|logits/"
    r"|kl$|objective/|policy/|ppo/|env/|entropy$|mean_token_accuracy$|perplexity$)"
)


def metric_name(written: str) -> str | None:
    """TRL's name of a metric; None when the name belongs to no metric.

    Control characters are taken out, so that no name steers a terminal.
    """
    if len(written) > MAX_NAME_CHARS:
        return None
    name = (written if written.isascii() and written.isprintable() else printable(written)).strip()
    group, slash, rest = name.partition("/")
    if slash and group.lower() == "train":
        # The Trainer's last row, `train_loss` and its like, under the prefix that it gives to training.
        name = "" if rest.startswith("train_") else rest
    elif slash and group.lower() == "eval":
        name = f"eval_{rest}"
    folded = name.lower()
    if folded in _NO_METRICS:
        return None
    return _SAME.get(folded, folded if folded in ("loss", "epoch") else name)


def is_evaluation(name: str) -> bool:
    """Whether a metric of this name (TRL's) is one of evaluation."""
    return name.startswith("eval_")


def shows_training(name: str) -> bool:
    """Whether a metric of this name (TRL's) is what a training loop logs, whoever wrote it."""
    return _SHOWS_TRAINING.match(name) is not None


def is_summary(written: str) -> bool:
    """Whether a name belongs to the row that sums a run up."""
    return written.removeprefix("train/") in SUMMARY_NAMES
