"""Logs of TRL's other trainers on the same pairs."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, TaskType
from tests.health.generator.pairs import Pair
from tests.health.generator.tiny import base_model, tokenizer
from tests.health.generator.training import HELDOUT_PAIRS, Recipe, Rows, config_options, optimizers
from transformers import PreTrainedModel, PrinterCallback, Qwen2ForSequenceClassification, Trainer
from trl import KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

MakeRows = Callable[[list[Pair]], list[dict[str, Any]]]


def sft_log(recipe: Recipe, policy: Callable[[], PreTrainedModel]) -> Rows:
    """Of supervised fine-tuning on prompt and chosen."""

    def rows(pairs: list[Pair]) -> list[dict[str, Any]]:
        return [{"prompt": pair.prompt, "completion": pair.chosen} for pair in pairs]

    return _log(recipe, SFTTrainer, SFTConfig, rows, policy(), recipe.lora)


def orpo_log(recipe: Recipe) -> Rows:
    """Of ORPO, which needs no reference."""
    return _log(recipe, ORPOTrainer, ORPOConfig, _paired, base_model(), recipe.lora)


def simpo_log(recipe: Recipe) -> Rows:
    """Of SimPO, which needs no reference either."""
    return _log(recipe, CPOTrainer, _simpo_config, _paired, base_model(), recipe.lora)


def _simpo_config(**options: Any) -> CPOConfig:
    return CPOConfig(loss_type="simpo", cpo_alpha=0.0, **options)


def kto_log(recipe: Recipe) -> Rows:
    """Of KTO: each completion on its own, with a label."""

    def rows(pairs: list[Pair]) -> list[dict[str, Any]]:
        return [
            {
                "prompt": pair.prompt,
                "completion": pair.chosen if at % 2 else pair.rejected,
                "label": bool(at % 2),
            }
            for at, pair in enumerate(pairs)
        ]

    return _log(recipe, KTOTrainer, KTOConfig, rows, base_model(), recipe.lora)


def reward_log(recipe: Recipe) -> Rows:
    """Of a reward model."""
    config = base_model().config
    config.num_labels = 1
    model = Qwen2ForSequenceClassification(config)
    model.model.load_state_dict(base_model().model.state_dict())
    lora = LoraConfig(r=8, task_type=TaskType.SEQ_CLS, target_modules=["q_proj", "v_proj"])
    return _log(recipe, RewardTrainer, RewardConfig, _paired, model, lora)


def _paired(pairs: list[Pair]) -> list[dict[str, Any]]:
    return [vars(pair) for pair in pairs]


def _log(
    recipe: Recipe,
    trainer_type: type[Trainer],
    config_type: Callable[..., Any],
    rows: MakeRows,
    model: PreTrainedModel,
    lora: LoraConfig | None,
) -> Rows:
    rng = random.Random(recipe.seed)
    train = rows(recipe.pairs(rng, recipe.steps * recipe.batch))
    heldout = rows(recipe.pairs(rng, HELDOUT_PAIRS))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_type(
            model=model,
            args=config_type(**(config_options(recipe, Path(folder)) | recipe.options)),
            train_dataset=Dataset.from_list(train),
            eval_dataset=Dataset.from_list(heldout) if recipe.eval_every else None,
            processing_class=tokenizer(),
            peft_config=lora,
        )
        if recipe.rate is not None:
            trainer.optimizer, trainer.lr_scheduler = optimizers(recipe, trainer.model)
        trainer.remove_callback(PrinterCallback)
        for fault in recipe.faults:
            fault(trainer)
        trainer.train()
    return list(trainer.state.log_history)
