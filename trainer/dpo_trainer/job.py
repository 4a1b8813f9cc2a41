"""One rank's whole job, from the attempt's profile to the final adapter."""

from __future__ import annotations

import json
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import torch
from peft import PeftModel
from transformers import PretrainedConfig, PreTrainedTokenizerBase, PrinterCallback, set_seed

from dpo_profiles.load import parse_resolved
from dpo_profiles.schema import Profile
from dpo_telemetry import components, events, identity
from dpo_telemetry.cli import EXIT_BAD_NEWS, EXIT_BUG, EXIT_FINE, EXIT_INTERRUPTED, EXIT_USAGE
from dpo_telemetry.rundir.layout import Attempt, RunDirectory
from dpo_telemetry.writer import EventWriter
from dpo_trainer import checkpoint, engine, files
from dpo_trainer.checkpoint import Checkpoints, Position
from dpo_trainer.control import Control, Stopped
from dpo_trainer.data.pairs import PairCollator, RunPairs, as_dataset, make_pairs, schedule
from dpo_trainer.data.source import load_rows
from dpo_trainer.dpo import settings
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
from dpo_trainer.model.adapter import POLICY, adapter_weights, add_policy, make_equal, save_adapter
from dpo_trainer.model.adapter_check import check_adapter
from dpo_trainer.model.adapter_files import find_adapter
from dpo_trainer.model.fill import fill
from dpo_trainer.model.preflight import check_ranks
from dpo_trainer.model.skeleton import build_skeleton, read_config
from dpo_trainer.model.tokenizer import load_tokenizer
from dpo_trainer.selftest.run import SelfTest

_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "deepspeed",
    "dpo-deck",
)


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
    settings.check(profile, chosen)
    writer = EventWriter(attempt.event_file(f"rank-{chosen.ranks.rank:05d}"))
    try:
        emitter = Emitter(writer, MemoryMeter(chosen))
        control = Control(run_directory, attempt_number, emitter.put, chosen.ranks)
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
        self.ranks = chosen.ranks
        self.watch = Watch(profile.alerts, emitter, chosen.ranks)
        base = profile.model.base
        self.base_name = str(Path(base).absolute()) if Path(base).is_dir() else base
        self.checkpoints = Checkpoints(directory.checkpoints_dir, self.base_name, profile.save.keep_last)
        if self.ranks.rank == 0:
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
        except RuntimeError as error:
            if not self.ranks.lost_one(error):
                self._end(EXIT_BUG, f"RuntimeError: {error}")
                raise
            lines.write_message("another rank ended, so this one ends too; see how that one did")
            return self._end(EXIT_BAD_NEWS, "another rank ended")
        except KeyboardInterrupt:
            self._end(EXIT_INTERRUPTED, "interrupted")
            raise
        except BaseException as error:
            self._end(EXIT_BUG, f"{type(error).__name__}: {error}")
            raise

    def _train(self) -> int:
        steps = self.profile.train.max_steps
        with tempfile.TemporaryDirectory(prefix="dpo-trainer-") as scratch:
            with self.control.interruptible(), self.emitter.in_phase("load"):
                # What loading takes is held against what the libraries took before.
                self.emitter.measure()
                self.engine.begin()
                trainer, callback = self._load(Path(scratch))
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
        config = read_config(folder, profile.model.base)
        trained = self._find_adapter(config)
        tokenizer = load_tokenizer(folder, profile)
        pairs = self._load_pairs(tokenizer)
        self._check_ranks(config, pairs)
        note = f": {package.NOTE}" if package.is_packaged(folder) else ""
        lines.write_message(f"model: {profile.model.base}{note}")
        self.emitter.progress(0, message=f"loading {profile.model.base}{note}")
        skeleton = build_skeleton(config, profile, self.engine.compute_dtype, self.engine.device)
        model = add_policy(skeleton, profile.adapter, trained)
        trainer, callback = self._make_trainer(model, tokenizer, pairs, scratch)
        self.engine.attach(trainer.accelerator)
        started_from = make_equal(trainer.policy, self.engine.adapter_dtype)
        if self.resume is not None:
            started_from = checkpoint.load_adapters(self.resume, trainer.policy)
        loaded = fill(trainer.policy, folder, profile, self.engine, self._tell_loading)
        if not loaded.streamed:
            lines.write_message(
                "model: its files have other tensor names than the model, so each rank held the whole base once"
            )
        callback.test_first(SelfTest(self.engine, loaded, started_from, self._planned_bytes()))
        self.emitter.memory.watch(trainer.policy)
        return trainer, callback

    def _tell_fetching(self, done: int, total: int, message: str) -> None:
        self.emitter.progress(done, total, "steps", message)

    def _tell_loading(self, done: int, total: int, message: str) -> None:
        self.emitter.progress(done, total, "layers", message)
        self.control.raise_if_stopping()

    def _find_adapter(self, config: PretrainedConfig) -> Path | None:
        adapter = self.profile.adapter
        if not adapter.path:
            return None
        folder = find_adapter(adapter)
        check_adapter(folder, adapter, config, self.profile.model.base)
        return folder

    def _check_ranks(self, config: PretrainedConfig, pairs: RunPairs) -> None:
        check_ranks(
            self.ranks.world_size,
            config.get_text_config().num_hidden_layers,
            len(pairs.train),
            self.profile.engine.backend,
            self.profile.train.micro_batch_pairs,
        )

    def _load_pairs(self, tokenizer: PreTrainedTokenizerBase) -> RunPairs:
        data = self.profile.data
        self.emitter.progress(0, message=f"reading {data.name}")
        pairs = make_pairs(load_rows(data), tokenizer, data, self.profile.train.seed)
        if self.ranks.world_size > 1:
            pairs = pairs.evenly(self.profile.eval.micro_batch_pairs * self.ranks.world_size)
        self.emitter.progress(0, message=pairs.report.message())
        lines.write_message(f"data: {pairs.report.message()}")
        return pairs

    def _make_trainer(
        self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, pairs: RunPairs, scratch: Path
    ) -> tuple[PairTrainer, RunCallback]:
        profile, train = self.profile, self.profile.train
        per_step = train.micro_batch_pairs * train.gradient_accumulation_steps * self.ranks.world_size
        needed = per_step * max(train.max_steps - self.begun_at.step, 1)
        # By pairs and not by steps: another number of ranks goes on with the same pairs.
        order = schedule(pairs.train, self.begun_at.pairs + needed, train.seed)
        to_go = order[self.begun_at.pairs :]
        timer = StepTimer(self.engine.device)
        callback = RunCallback(
            profile, self.emitter, self.control, self.watch, timer, pairs.report, self.engine
        )
        trainer = PairTrainer(
            ranks=self.ranks,
            timer=timer,
            save=lambda step: self._save_checkpoint(trainer, callback.position(step)),
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

    def _planned_bytes(self) -> int | None:
        """The base's weights on this rank by the attempt's plan; None where there is none."""
        try:
            ranks = json.loads(self.attempt.plan_file.read_bytes())["per_gpu"]
            return int(ranks[self.ranks.rank]["components"][components.POLICY_WEIGHTS])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _save_checkpoint(self, trainer: PairTrainer, position: Position) -> None:
        with self.emitter.in_phase("save"):
            content = checkpoint.gather(trainer.policy, self.engine, trainer.optimizer, trainer.lr_scheduler)
            target = self.checkpoints.save(position, content, self.engine)
            self._tell_saved(position.step, target, final=False)

    def _save_final(self, trainer: PairTrainer, step: int) -> None:
        with self.emitter.in_phase("save"):
            weights = self._final_weights(trainer, step)
            if self.ranks.rank == 0:
                with files.whole_folder(self.directory.adapter_dir) as folder:
                    save_adapter(weights, trainer.policy.peft_config[POLICY], self.base_name, folder)
            self._tell_saved(step, self.directory.adapter_dir, final=True)

    def _final_weights(self, trainer: PairTrainer, step: int) -> dict[str, torch.Tensor]:
        if self.resume is not None and self.begun_at.step >= step:
            # Nothing was trained, so an engine that keeps masters apart has none yet.
            return files.load_tensors(self.resume / "adapter_model.safetensors")
        return adapter_weights(trainer.policy, POLICY, self.engine)

    def _tell_saved(self, step: int, path: Path, *, final: bool) -> None:
        if self.ranks.rank > 0:
            return
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
        if self.ranks.rank > 0:
            return
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
                rank=self.ranks.rank,
                world_size=self.ranks.world_size,
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
                rank=self.ranks.rank,
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
