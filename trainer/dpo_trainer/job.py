"""One rank's whole job, from the attempt's profile to the final adapter."""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed

from dpo_profiles.load import parse_resolved
from dpo_profiles.schema import Profile
from dpo_telemetry import events, identity
from dpo_telemetry.cli import EXIT_BAD_NEWS, EXIT_BUG, EXIT_FINE, EXIT_INTERRUPTED, EXIT_USAGE
from dpo_telemetry.rundir.layout import Attempt, RunDirectory
from dpo_telemetry.writer import EventWriter
from dpo_trainer import checkpoint, engine, files
from dpo_trainer.checkpoint import Checkpoints, Position
from dpo_trainer.control import Control, Stopped
from dpo_trainer.data.pairs import PairCollator, RunPairs, as_dataset, make_pairs, schedule
from dpo_trainer.data.source import load_rows
from dpo_trainer.dpo import checks, settings
from dpo_trainer.dpo.trainer import PairTrainer
from dpo_trainer.dpo.watch import RunFailed, Watch
from dpo_trainer.emit import lines
from dpo_trainer.emit.callback import RunCallback
from dpo_trainer.emit.emitter import Emitter
from dpo_trainer.emit.memory import MemoryMeter
from dpo_trainer.emit.timer import StepTimer
from dpo_trainer.engine import Engine
from dpo_trainer.errors import TrainerError
from dpo_trainer.model import hub, package
from dpo_trainer.model.adapter import POLICY, add_policy, restore_masters, save_adapter
from dpo_trainer.model.base import load_base, load_tokenizer

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "dpo-deck")


def run(directory: Path, attempt_number: int) -> int:
    """Train one attempt of a run; returns 0 when it finished or was stopped, 1 when it failed.

    Raises:
        TrainerError: the profile, the model or the data are not usable.
        TelemetryError: this is no run directory.
    """
    run_directory = RunDirectory(directory)
    run_directory.info()
    attempt = run_directory.attempt(attempt_number)
    profile = _read_profile(attempt)
    chosen = engine.choose(profile)
    settings.check(profile, chosen.device)
    writer = EventWriter(attempt.event_file(f"rank-{chosen.rank:05d}"))
    try:
        emitter = Emitter(writer, MemoryMeter(chosen.device))
        control = Control(run_directory, attempt_number, emitter.put)
        with control.listening():
            return Job(run_directory, attempt, profile, chosen, emitter, control).run()
    finally:
        writer.close()


def _read_profile(attempt: Attempt) -> Profile:
    try:
        text = attempt.profile_file.read_text()
    except OSError as error:
        raise TrainerError(
            f"{attempt.profile_file}: cannot be read: {error.strerror}; give the number of an attempt"
        ) from error
    return parse_resolved(text, str(attempt.profile_file))


class Job:
    """The job's parts, and the order in which they are put together."""

    def __init__(
        self,
        directory: RunDirectory,
        attempt: Attempt,
        profile: Profile,
        chosen: Engine,
        emitter: Emitter,
        control: Control,
    ) -> None:
        self.directory = directory
        self.attempt = attempt
        self.profile = profile
        self.engine = chosen
        self.emitter = emitter
        self.control = control
        self.watch = Watch(profile.alerts, emitter)
        base = profile.model.base
        self.base_name = str(Path(base).absolute()) if Path(base).is_dir() else base
        self.checkpoints = Checkpoints(directory.checkpoints_dir, self.base_name, profile.save.keep_last)
        self.checkpoints.remove_unfinished()
        files.remove_unfinished(directory.path, directory.adapter_dir.name)
        self.resume = self._resume_point()
        self.begun_at = checkpoint.read_position(self.resume) if self.resume else Position()

    def run(self) -> int:
        """Train, and tell how it ended whatever happens."""
        self._start()
        try:
            return self._train()
        except Stopped:
            return self._end(EXIT_FINE, "stopped")
        except RunFailed as failure:
            return self._end(EXIT_BAD_NEWS, str(failure))
        except torch.OutOfMemoryError as error:
            self.emitter.alert("oom", "critical", str(error).splitlines()[0])
            return self._end(EXIT_BAD_NEWS, "oom")
        except click.ClickException as error:
            self._end(error.exit_code, error.format_message())
            raise
        except OSError as error:
            self._end(EXIT_USAGE, f"{error.filename or 'the system'}: {error.strerror or error}")
            raise
        except KeyboardInterrupt:
            self._end(EXIT_INTERRUPTED, "interrupted")
            raise
        except BaseException as error:
            self._end(EXIT_BUG, f"{type(error).__name__}: {error}")
            raise

    def _train(self) -> int:
        steps = self.profile.train.max_steps
        with tempfile.TemporaryDirectory(prefix="dpo-trainer-") as scratch:
            with self.control.interruptible():
                with self.emitter.in_phase("load"):
                    trainer, callback = self._load(Path(scratch))
                self._check_reference(trainer)
            # A run that ended between its last checkpoint and its adapter has only the adapter to write.
            if self.begun_at.step < steps:
                with self.emitter.in_phase("train", total=steps, unit="steps"):
                    trainer.train()
                self.watch.raise_failure()
                if trainer.state.global_step < steps:
                    return self._end(EXIT_FINE, "stopped")
            self._save_final(trainer, steps)
            self._summarise(callback)
        return self._end(EXIT_FINE, "finished")

    def _load(self, scratch: Path) -> tuple[PairTrainer, RunCallback]:
        profile = self.profile
        set_seed(profile.train.seed)
        folder = hub.get_model(profile.model.base, profile.model.revision, self._tell_fetching)
        tokenizer = load_tokenizer(folder, profile)
        pairs = self._load_pairs(tokenizer)
        note = f": {package.NOTE}" if package.is_packaged(folder) else ""
        lines.write_message(f"model: {profile.model.base}{note}")
        self.emitter.progress(0, message=f"loading {profile.model.base}{note}")
        base = load_base(folder, profile, self.engine.compute_dtype, self.engine.device)
        model = add_policy(base, profile.adapter)
        trainer, callback = self._make_trainer(model, tokenizer, pairs, scratch)
        restore_masters(trainer.policy, getattr(torch, profile.adapter.master_dtype))
        if self.resume is not None:
            checkpoint.load_adapters(self.resume, trainer.policy)
        checks.require_trainable_adapter(trainer.policy)
        self.emitter.memory.watch(trainer.policy)
        return trainer, callback

    def _tell_fetching(self, done: int, total: int, message: str) -> None:
        self.emitter.progress(done, total, "steps", message)

    def _load_pairs(self, tokenizer: PreTrainedTokenizerBase) -> RunPairs:
        data = self.profile.data
        self.emitter.progress(0, message=f"reading {data.name}")
        pairs = make_pairs(load_rows(data), tokenizer, data, self.profile.train.seed)
        self.emitter.progress(0, message=pairs.report.message())
        lines.write_message(f"data: {pairs.report.message()}")
        return pairs

    def _make_trainer(
        self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, pairs: RunPairs, scratch: Path
    ) -> tuple[PairTrainer, RunCallback]:
        profile, train = self.profile, self.profile.train
        per_step = train.micro_batch_pairs * train.gradient_accumulation_steps * self.engine.world_size
        order = schedule(pairs.train, per_step * train.max_steps, train.seed)
        to_go = order[per_step * self.begun_at.step :] or order[-per_step:]
        timer = StepTimer(self.engine.device)
        callback = RunCallback(profile, self.emitter, self.control, self.watch, timer, pairs.report)
        trainer = PairTrainer(
            timer=timer,
            save=lambda step: self._save_checkpoint(trainer, step, callback.tokens),
            in_evaluation=lambda: self.emitter.in_phase("eval", total=len(pairs.heldout), unit="pairs"),
            model=model,
            args=settings.training_arguments(profile, self.engine, scratch),
            train_dataset=as_dataset(to_go),
            eval_dataset=as_dataset(pairs.heldout) if pairs.heldout else None,
            processing_class=tokenizer,
            data_collator=PairCollator(pad_token_id=tokenizer.pad_token_id),
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        callback.attach(trainer, self.resume, self.begun_at)
        return trainer, callback

    def _check_reference(self, trainer: PairTrainer) -> None:
        """Hold the reference against the policy; a resumed policy has moved away from it already."""
        if self.resume is None:
            with self.emitter.in_phase("reference"):
                self.watch.reference(checks.reference_difference(trainer))
            self.watch.raise_failure()

    def _save_checkpoint(self, trainer: PairTrainer, step: int, tokens: int) -> None:
        with self.emitter.in_phase("save"):
            target = self.checkpoints.save(
                step, tokens, trainer.policy, self.engine, trainer.optimizer, trainer.lr_scheduler
            )
            self._tell_saved(step, target, final=False)

    def _save_final(self, trainer: PairTrainer, step: int) -> None:
        with self.emitter.in_phase("save"):
            with files.whole_folder(self.directory.adapter_dir) as folder:
                save_adapter(trainer.policy, POLICY, self.base_name, folder)
            self._tell_saved(step, self.directory.adapter_dir, final=True)

    def _tell_saved(self, step: int, path: Path, *, final: bool) -> None:
        self.emitter.put(
            events.Checkpoint(
                **events.stamp(),
                step=step,
                path=str(path.relative_to(self.directory.path)),
                size_bytes=checkpoint.size_bytes(path),
                final=final,
            )
        )

    def _summarise(self, callback: RunCallback) -> None:
        lines.write_summary(
            {
                "run": self.directory.name,
                "steps": self.profile.train.max_steps,
                "adapter": str(self.directory.adapter_dir),
                "data": callback.report.as_dict(),
                "train": callback.last_step,
                "eval": callback.last_eval,
            }
        )

    def _resume_point(self) -> Path | None:
        """A later attempt goes on from the newest checkpoint; the first starts anew."""
        if self.attempt.number == 1:
            return None
        found = self.checkpoints.all()
        return found[-1] if found else None

    def _start(self) -> None:
        self.emitter.put(
            events.Start(
                **events.stamp(),
                **identity.writer_fields(),
                role="rank",
                rank=self.engine.rank,
                world_size=self.engine.world_size,
                attempt=self.attempt.number,
                resumed_from_step=self.begun_at.step if self.resume else None,
                versions=_versions(),
                device=self.engine.device_name,
                max_steps=self.profile.train.max_steps,
            )
        )
        lines.write_message(
            f"device: {self.engine.device_name}, {torch.get_num_threads()} threads of {os.cpu_count()} cores; "
            f"base computes in {self.engine.compute_dtype} ({self.engine.compute_dtype_reason})"
        )

    def _end(self, code: int, reason: str) -> int:
        for request in self.control.unanswered():
            stopped = request.action == "stop" and code == EXIT_FINE
            self.control.answer(request, stopped, f"the run ended: {reason}")
        self.emitter.put(
            events.Exit(
                **events.stamp(),
                role="rank",
                code=code,
                reason=reason,
                rank=self.engine.rank,
                step=self.emitter.step,
            )
        )
        return code


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
