"""What happens around a training step: events, alerts, requests, evaluation and saving when due."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpo_profiles.schema import Profile
from dpo_telemetry import events
from dpo_telemetry.rundir.control import ControlRequest
from dpo_trainer import checkpoint
from dpo_trainer.checkpoint import Position
from dpo_trainer.control import Control
from dpo_trainer.data.lengths import DataReport
from dpo_trainer.dpo import checks
from dpo_trainer.dpo.heldout import reward_metrics
from dpo_trainer.dpo.results import Results
from dpo_trainer.dpo.trainer import PairTrainer
from dpo_trainer.dpo.watch import Watch
from dpo_trainer.emit import lines
from dpo_trainer.emit.emitter import Emitter
from dpo_trainer.emit.timer import StepTimer
from dpo_trainer.engine import Engine
from dpo_trainer.selftest.run import SelfTest


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Tells what the trainer does and steers what it does next."""

    def __init__(
        self,
        profile: Profile,
        emitter: Emitter,
        control: Control,
        watch: Watch,
        timer: StepTimer,
        report: DataReport,
        engine: Engine,
    ) -> None:
        self._profile = profile
        self._engine = engine
        self._ranks = engine.ranks
        self._emitter = emitter
        self._control = control
        self._watch = watch
        self._timer = timer
        self.report = report
        train = profile.train
        per_rank = train.micro_batch_pairs * train.gradient_accumulation_steps
        self._pairs_per_step = per_rank * engine.ranks.world_size
        self._checked_update = False
        self._open: list[ControlRequest] = []
        self.tokens = 0
        """Tokens trained on so far, over all attempts."""
        self._attached: PairTrainer | None = None
        self._resume: Path | None = None
        self._begun_at = Position()
        self._self_test: SelfTest | None = None
        self.last_eval: dict[str, float] = {}
        self.last_step: dict[str, float] = {}

    def attach(self, trainer: PairTrainer, resume: Path | None, begun_at: Position) -> None:
        """Know the trainer, and the checkpoint that it goes on from."""
        self._attached, self._resume, self._begun_at = trainer, resume, begun_at
        self.tokens = begun_at.tokens

    def position(self, step: int) -> Position:
        """How far the run has come after a step."""
        pairs = self._begun_at.pairs + (step - self._begun_at.step) * self._pairs_per_step
        return Position(step, self.tokens, pairs)

    def test_first(self, self_test: SelfTest) -> None:
        """Make this test when the engine has taken over and before anything is trained."""
        self._self_test = self_test

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        **_: Any,
    ) -> None:
        """Test what the engine made; then go on where the checkpoint ends, or evaluate where training starts."""
        trainer = self._trainer()
        self._emitter.memory.watch(trainer.policy, optimizer)
        if self._self_test is not None:
            with self._emitter.in_phase("reference"):
                resumed = self._resume is not None
                self._self_test.run(trainer, self._emitter, self._watch, resumed=resumed)
            self._control.raise_if_stopping()
        if self._resume is not None:
            state.global_step = self._begun_at.step
            checkpoint.load_progress(self._resume, trainer.policy, self._engine, optimizer, lr_scheduler)
        elif trainer.eval_dataset is not None:
            trainer.evaluate()
        self._emitter.step = state.global_step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start collecting the step's pairs."""
        self._results().batches.clear()
        if self._resume is not None and state.global_step == self._begun_at.step:
            # Not earlier: making the data loader draws from the generators too.
            checkpoint.load_random(self._resume, self._engine)

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer,
        **_: Any,
    ) -> None:
        """Measure memory while the gradients are there, and hold the first real update to its word."""
        self._emitter.step = state.global_step + 1
        self._emitter.measure()
        if not self._checked_update and optimizer.param_groups[0]["lr"] > 0:
            self._checked_update = True
            moved = checks.moved_fraction(self._trainer().policy, self._engine, optimizer)
            self._watch.first_update(moved)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Decide what follows this step."""
        step, profile = state.global_step, self._profile
        last = step >= state.max_steps
        self._open += self._control.take()
        asked = {request.action for request in self._open}
        wishes = (self._control.stopping, "evaluate" in asked, "save" in asked)
        stopping, evaluate, save = self._ranks.any(wishes)
        every = profile.eval.every_steps
        due = every > 0 and step % every == 0
        can_evaluate = self._trainer().eval_dataset is not None
        control.should_evaluate = can_evaluate and (last or (due and not stopping) or evaluate)
        save_due = profile.save.every_steps > 0 and step % profile.save.every_steps == 0
        control.should_save = last or stopping or save_due or save
        control.should_training_stop = last or stopping
        if not can_evaluate:
            self._answer("evaluate", False, "no pairs are held out: data.heldout_pairs is 0")
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        """Tell a step; evaluations are told by `on_evaluate`."""
        if "loss" not in logs:
            return
        results = self._results()
        epoch = state.global_step * self._pairs_per_step / self.report.train
        metrics = {name: float(value) for name, value in logs.items() if name != "epoch"}
        seen = self._begun_at.tokens + int(metrics["num_tokens"])
        of_step, self.tokens = seen - self.tokens, seen
        metrics["num_tokens"] = float(seen)
        self.last_step = metrics
        step = events.Step(
            **events.stamp(),
            step=state.global_step,
            metrics=_numbers(metrics),
            epoch=epoch,
            tokens=of_step,
            pairs=self._pairs_per_step,
            times_s=self._timer.finish_step(),
        )
        if self._ranks.rank == 0:
            self._emitter.put(step)
            lines.write_metrics({**metrics, "epoch": epoch})
        else:
            # What all ranks have in common is told once; where a rank's time goes is its own.
            self._emitter.put(events.Step(**events.stamp(), step=step.step, metrics={}, times_s=step.times_s))
        self._watch.step(state.global_step, metrics, results)
        if self._watch.failure:
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell how far an evaluation is; before the first step a stop ends the run here."""
        dataset = self._trainer().eval_dataset
        done = min(self._results().pairs * self._ranks.world_size, len(dataset))
        self._emitter.progress(done, len(dataset), "pairs")
        if state.global_step == self._begun_at.step:
            self._control.raise_if_stopping()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        """Tell an evaluation: rewards pair by pair, the rest as TRL has them."""
        results, step = self._results().over(self._ranks), state.global_step
        found = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        found["eval_loss"] = results.mean_loss()
        found["eval_num_tokens"] = float(self.tokens)
        found |= reward_metrics(*results.rewards(self._profile.loss.beta), self._profile.train.seed)
        epoch = step * self._pairs_per_step / self.report.train
        self.last_eval = found
        if self._ranks.rank == 0:
            numbers = _numbers(found)
            self._emitter.put(
                events.Eval(**events.stamp(), step=step, metrics=numbers, epoch=epoch, pairs=results.pairs)
            )
            lines.write_metrics({**found, "epoch": epoch})
            for metric in ("eval_loss", "eval_rewards/margins"):
                if not math.isfinite(found[metric]):
                    self._watch.samples(step, metric, results)
        self._answer("evaluate", True, f"evaluated at step {step}")

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Answer whoever asked for a checkpoint."""
        self._answer("save", True, f"saved at step {state.global_step}")
        self._answer("stop", True, f"stopped at step {state.global_step}")

    def _answer(self, action: str, ok: bool, message: str) -> None:
        for request in self._open:
            if request.action == action:
                self._control.answer(request, ok, message)
        self._open = [request for request in self._open if request.action != action]

    def _trainer(self) -> PairTrainer:
        assert self._attached is not None
        return self._attached

    def _results(self) -> Results:
        return self._trainer().results


def _numbers(metrics: Mapping[str, float]) -> dict[str, events.Number]:
    return {name: events.to_number(value) for name, value in metrics.items()}
