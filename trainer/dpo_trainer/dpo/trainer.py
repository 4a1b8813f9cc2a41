"""TRL's DPO trainer with the few places opened where it cannot be told otherwise.

Overridden, and why:
- `_prepare_dataset`: TRL tokenises every data set itself, even one that holds token ids, and
  its way adds EOS and drops rows without a count.
- `compute_loss`: the reference's log-probs come without dropout, in evaluations from a cache; each pair's
  own log-probs are kept, which TRL averages away.
- `training_step`, `get_batch_samples`: the step's time is split there.
- `_save_checkpoint`: our checkpoints are whole or absent, and neutral to the engine.
- `log`: the loss is our own mean over the step's pairs, because the Trainer's running sum stays NaN
  for ever after one NaN.
- `evaluate`: each evaluation collects its own pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from trl import DPOTrainer
from trl.trainer import utils as trl_utils

from dpo_trainer.data.pairs import PAIR_IDS
from dpo_trainer.dpo.reference import LogProbs, ReferenceLogProbs, evaluating
from dpo_trainer.dpo.results import BatchResult, Results
from dpo_trainer.emit.timer import StepTimer
from dpo_trainer.engine import Ranks

Batch = dict[str, Any]


def score_completions_only() -> None:
    """Let TRL's fused head compute logits of completion positions only, on a CPU too.

    Where there is no Triton it scores prompts and padding as well and throws their values away, so
    that shapes stay the same for compilers. Nothing is compiled here, and on a CPU the head over a
    vocabulary is a good part of a small model's step.
    """
    trl_utils._use_triton = lambda device: True


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """DPO on pairs in token ids, with a frozen reference adapter.

    Policy log-probs are computed in training mode, so the adapter's dropout is live; the
    reference's never see dropout, because noise in a fixed target would only be added to the
    policy's. With dropout the first margin is therefore near zero and not zero for a trained
    adapter, and exactly zero for a new one, whose output is zero whatever its input.
    """

    def __init__(
        self,
        *,
        ranks: Ranks,
        timer: StepTimer,
        save: Callable[[int], None],
        in_evaluation: Callable[[], AbstractContextManager[None]],
        **arguments: Any,
    ) -> None:
        score_completions_only()
        super().__init__(**arguments)
        self._ranks = ranks
        self._step_timer = timer
        self._save_step = save
        self._evaluation_phase = in_evaluation
        self._last_log_probs: torch.Tensor | None = None
        self._in_evaluation = False
        self.results = Results()
        """What the pairs of the current step or evaluation came to."""
        self._reference_cache = ReferenceLogProbs(self._compute_reference)
        # From here on TRL takes the reference's log-probs from the batch, where compute_loss puts them.
        self.precompute_ref_logps = True
        self.model.register_forward_hook(self._keep_log_probs)

    @property
    def policy(self) -> PeftModel:
        """The model with both adapters, unwrapped."""
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        return model

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: object = None,
    ) -> Any:
        """Mean loss of a batch of pairs, scalar, float32."""
        with self._step_timer.span("forward"):
            batch = dict(inputs)
            pair_ids = tuple(batch.pop(PAIR_IDS).tolist())
            batch["ref_chosen_logps"], batch["ref_rejected_logps"] = self.reference_log_probs(pair_ids, batch)
            loss = super().compute_loss(model, batch, return_outputs=False)
            self.results.batches.append(self._result(pair_ids, loss, batch))
        return loss

    def reference_log_probs(self, pair_ids: tuple[int, ...], batch: Batch) -> LogProbs:
        """The reference's summed log-probs of a batch on the device, without dropout."""
        return self._reference_cache.of(pair_ids, batch, keep=self._in_evaluation)

    def policy_log_probs(self, batch: Batch) -> LogProbs:
        """The policy's summed log-probs of a batch, without dropout and gradients."""
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        with evaluating(self.model), torch.no_grad():
            self.model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                use_cache=False,
                labels=labels,
                fused_lm_head=True,
            )
        return self._summed()

    def first_batch(self) -> tuple[tuple[int, ...], Batch]:
        """The first batch that this rank will train on, as it will be trained on."""
        size = self.args.per_device_train_batch_size
        begin = self._ranks.rank * size
        rows = [self.train_dataset[i] for i in range(begin, min(begin + size, len(self.train_dataset)))]
        batch = self._prepare_inputs(self.data_collator(rows))
        return tuple(batch.pop(PAIR_IDS).tolist()), batch

    def first_loss(self, batch: Batch, pair_ids: tuple[int, ...]) -> float:
        """Mean loss of a batch over the ranks, without dropout and gradients."""
        inputs = {**batch, PAIR_IDS: torch.tensor(pair_ids)}
        with evaluating(self.model), torch.no_grad(), self._step_timer.paused():
            loss = float(self.compute_loss(self.model, inputs))
        # What TRL would average into the first evaluation.
        self._metrics["eval"].clear()
        self.results.batches.clear()
        return self._ranks.mean(loss)

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Forward and backward pass of one micro-batch."""
        with self._step_timer.span("forward_backward"):
            loss: torch.Tensor = super().training_step(*arguments, **options)
        return loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> Any:
        """The micro-batches of one step."""
        with self._step_timer.span("data"):
            return super().get_batch_samples(epoch_iterator, num_batches, device)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Evaluate the held-out pairs; while callbacks are told, `results` holds these pairs."""
        of_step, self.results = self.results, Results()
        self._in_evaluation = True
        try:
            # A data loader draws from the generator, and an evaluation must change no later number.
            with self._evaluation_phase(), self._step_timer.paused(), torch.random.fork_rng(self._devices()):
                metrics: dict[str, float] = super().evaluate(*arguments, **options)
        finally:
            self.results = of_step
            self._in_evaluation = False
        return metrics

    def _devices(self) -> list[torch.device]:
        """This rank's own: every GPU of the host would be initialised otherwise."""
        device = self.args.device
        return [device] if device.type == "cuda" else []

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hand the numbers of a step or an evaluation to the callbacks."""
        if "loss" in logs and self.results.batches:
            logs["loss"] = self._ranks.mean(self.results.mean_loss())
        super().log(logs, start_time)

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        self._save_step(self.state.global_step)

    def _compute_reference(self, batch: Batch) -> LogProbs:
        with evaluating(self.model):
            chosen, rejected = self.compute_ref_log_probs(self.model, batch)
        return chosen, rejected

    def _keep_log_probs(self, _: nn.Module, __: object, output: Any) -> None:
        self._last_log_probs = output.log_probs.detach()

    def _summed(self) -> LogProbs:
        assert self._last_log_probs is not None
        chosen, rejected = self._last_log_probs.sum(dim=1).chunk(2)
        return chosen, rejected

    def _result(self, pair_ids: tuple[int, ...], loss: torch.Tensor, batch: Batch) -> BatchResult:
        chosen, rejected = self._summed()
        return BatchResult(
            pair_ids, loss.detach(), chosen, rejected, batch["ref_chosen_logps"], batch["ref_rejected_logps"]
        )
