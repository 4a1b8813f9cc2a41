"""One training of the tiny model with TRL's own trainers, and the log that it leaves."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tests.health.generator.pairs import MakePairs, graded
from tests.health.generator.tiny import base_model, tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer

Rows = list[dict[str, Any]]
Fault = Callable[[Trainer], None]
"""Changes a trainer that is about to train."""

HELDOUT_PAIRS = 24
LORA = LoraConfig(
    r=8,
    lora_alpha=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
)


@dataclass(frozen=True)
class Recipe:
    """What is trained on what, and how it is logged."""

    steps: int = 60
    seed: int = 1
    pairs: MakePairs = field(default_factory=graded)
    heldout: MakePairs | None = None
    """Pairs of evaluation; None for more of the same."""
    learning_rate: float = 7e-4
    rate: Callable[[int], float] | None = None
    """Factor of the learning rate before each update, in place of a schedule."""
    schedule: str = "cosine"
    warmup_steps: int = 6
    lora: LoraConfig | None = field(default_factory=lambda: LORA)
    """None trains all weights."""
    policy: Callable[[], PreTrainedModel] = base_model
    reference: Callable[[], PreTrainedModel] | None = None
    """None: the adapter switched off, or a copy of the policy."""
    words: Callable[[], PreTrainedTokenizerFast] = tokenizer
    batch: int = 4
    accumulation: int = 1
    beta: float = 0.1
    loss: str = "sigmoid"
    log_every: int = 1
    eval_every: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    """More fields of DPOConfig."""
    faults: tuple[Fault, ...] = ()


def log_of(recipe: Recipe) -> Rows:
    """Train, and return the trainer's log history."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(recipe, Path(folder))
        trainer.train()
    return list(trainer.state.log_history)


def resumed_log(recipe: Recipe, *, saved: int, killed: int) -> Rows:
    """Of a run that was killed after `killed` steps and resumed from its checkpoint of step `saved`.

    As a log on the screen has it: the rows between the two are there twice.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = recipe.options | {"save_strategy": "steps", "save_steps": saved}
        first = _trainer(
            replace(recipe, options=options, faults=(*recipe.faults, stop_at(killed))), Path(folder)
        )
        first.train()
        second = _trainer(replace(recipe, options=options), Path(folder))
        second.train(resume_from_checkpoint=str(Path(folder) / f"checkpoint-{saved}"))
    kept = [row for row in first.state.log_history if "train_runtime" not in row]
    return kept + [row for row in second.state.log_history if row["step"] > saved]


def stop_at(step: int) -> Fault:
    """End the training after so many steps."""

    class Stop(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            control.should_training_stop |= state.global_step >= step

    return lambda trainer: trainer.add_callback(Stop())


def config_options(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Fields that the configurations of all of TRL's trainers share."""
    return {
        "output_dir": str(folder),
        "max_steps": recipe.steps,
        "seed": recipe.seed,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_steps,
        "per_device_train_batch_size": recipe.batch,
        "per_device_eval_batch_size": 8,
        "gradient_accumulation_steps": recipe.accumulation,
        "logging_steps": recipe.log_every,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if recipe.eval_every else "no",
        "eval_steps": recipe.eval_every or None,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
    }


def optimizers(recipe: Recipe, model: torch.nn.Module) -> tuple[Any, Any]:
    """An optimizer whose learning rate follows `recipe.rate`; (None, None) for the trainer's own."""
    if recipe.rate is None:
        return None, None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate)


def _trainer(recipe: Recipe, folder: Path) -> DPOTrainer:
    rng = random.Random(recipe.seed)
    train = recipe.pairs(rng, recipe.steps * recipe.batch * recipe.accumulation)
    heldout = (recipe.heldout or recipe.pairs)(rng, HELDOUT_PAIRS) if recipe.eval_every else []
    policy = recipe.policy()
    reference = recipe.reference() if recipe.reference else recipe.policy() if recipe.lora is None else None
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(
            **(
                config_options(recipe, folder)
                | {"beta": recipe.beta, "loss_type": recipe.loss}
                | recipe.options
            )
        ),
        train_dataset=Dataset.from_list([vars(pair) for pair in train]),
        eval_dataset=Dataset.from_list([vars(pair) for pair in heldout]) if heldout else None,
        processing_class=recipe.words(),
        peft_config=recipe.lora,
    )
    if recipe.rate is not None:
        trainer.optimizer, trainer.lr_scheduler = optimizers(recipe, trainer.model)
    trainer.remove_callback(PrinterCallback)
    for fault in recipe.faults:
        fault(trainer)
    return trainer
