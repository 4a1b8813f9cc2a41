"""The profile in the words of TRL and the Hugging Face Trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trl import DPOConfig

from dpo_profiles.schema import Profile
from dpo_trainer.engine import Engine
from dpo_trainer.errors import TrainerError

_OPTIMIZERS = {
    "adamw_torch": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}


def check(profile: Profile, engine: Engine) -> None:
    """Refuse what would be accepted and then have no effect, or fail later.

    Raises:
        TrainerError: naming the field.
    """
    if profile.loss.label_smoothing > 0 and profile.loss.kind != "robust":
        raise TrainerError(
            f'loss.label_smoothing: TRL leaves it out of loss.kind "{profile.loss.kind}"; '
            'use loss.kind = "robust", or set it to 0'
        )
    if profile.optimizer.name != "adamw_torch" and engine.shards:
        raise TrainerError(
            f"optimizer.name: {profile.optimizer.name} keeps blocks that span shards; under engine.backend "
            f'{profile.engine.backend} use "adamw_torch"'
        )
    if profile.optimizer.name != "adamw_torch" and engine.device.type == "cpu":
        raise TrainerError(
            f"optimizer.name: {profile.optimizer.name} needs a GPU, and this run is on a CPU; "
            'use "adamw_torch"'
        )


class PlacedConfig(DPOConfig):  # type: ignore[misc]
    """Arguments for a model whose weights come after the trainer, on the right device at once."""

    @property
    def place_model_on_device(self) -> bool:
        """Moving hollow parameters would make them real."""
        return False


def training_arguments(profile: Profile, engine: Engine, scratch: Path) -> DPOConfig:
    """What TRL's trainer is told. Logging, evaluation and saving are driven by our own callback."""
    train, optimizer = profile.train, profile.optimizer
    settings: dict[str, Any] = {
        "output_dir": str(scratch),
        "max_steps": train.max_steps,
        "per_device_train_batch_size": train.micro_batch_pairs,
        "per_device_eval_batch_size": profile.eval.micro_batch_pairs,
        "gradient_accumulation_steps": train.gradient_accumulation_steps,
        "gradient_checkpointing": train.gradient_checkpointing,
        # Recomputing by saved-tensor hooks needs no input that requires gradients, and restores
        # the random state, so that dropout falls on the same places again.
        "gradient_checkpointing_kwargs": {"use_reentrant": engine.reentrant_checkpointing},
        "max_grad_norm": train.max_grad_norm,
        "seed": train.seed,
        "optim": _OPTIMIZERS[optimizer.name],
        "learning_rate": optimizer.learning_rate,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
        "lr_scheduler_type": profile.schedule.kind,
        "warmup_steps": _warmup_steps(profile),
        "beta": profile.loss.beta,
        "loss_type": [profile.loss.kind],
        "label_smoothing": profile.loss.label_smoothing,
        # The base computes in its own dtype and the adapter in float32. Autocast would round the
        # adapter in each product, and the log-probs where an engine casts a model's outputs.
        "bf16": False,
        "fp16": False,
        # Dropout is what the profile says; TRL's default switches the adapter's off.
        "disable_dropout": False,
        # Pairs are cut or dropped, and counted, before they come here.
        "max_length": None,
        "remove_unused_columns": False,
        "train_sampling_strategy": "sequential",
        # A loss that is not finite must be seen, not replaced by a running mean.
        "logging_nan_inf_filter": False,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": engine.device.type == "cuda",
    }
    arguments = PlacedConfig(**settings | engine.training_arguments())
    # Looking for the device counts every visible GPU, and the Trainer would spread a batch over all of
    # them. A process has one.
    _ = arguments.device
    arguments._n_gpu = 1
    return arguments


def _warmup_steps(profile: Profile) -> int:
    """Steps that warm up; a constant schedule has none, as its name says."""
    if profile.schedule.kind == "constant":
        return 0
    return math.ceil(profile.schedule.warmup_ratio * profile.train.max_steps)
