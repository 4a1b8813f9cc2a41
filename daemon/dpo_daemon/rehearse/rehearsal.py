"""A whole rehearsal: prepare, run, take the last checkpoint away, resume, compare."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dpo_daemon.checks import check_trainable, check_training_stack
from dpo_daemon.errors import DaemonError
from dpo_daemon.launch import check_backend
from dpo_daemon.preflight import gpu_count
from dpo_daemon.rehearse import findings
from dpo_daemon.rehearse.attempts import Tell, run_attempt
from dpo_daemon.rehearse.derive import STEPS, on_these_ranks, ranks_here, with_stand_ins
from dpo_daemon.rehearse.prepare import PreparationFailed, prepare
from dpo_daemon.rehearse.record import Record, read_record
from dpo_daemon.rehearse.verdict import Finding, Verdict
from dpo_daemon.starting import with_absolute_paths
from dpo_profiles.load import load_profile
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Profile
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.create import create_run
from dpo_telemetry.rundir.layout import RunDirectory

FOLDER = "rehearsal"
"""In the run: what the preparation made, and what the first attempt left."""
CPU_LIMITS = (
    "on a CPU a rehearsal cannot show the memory that the real model takes, communication over NCCL, "
    "nor what a GPU's kernels compute"
)


class Rehearsal:
    """One rehearsal of one profile.

    Raises:
        ProfileError: the profile is missing or invalid, or does not go with so many ranks.
        DaemonError: nothing here can launch it.
    """

    def __init__(
        self, profile_name: str, overrides: Sequence[str], ranks: int | None, limit_s: float, tell: Tell
    ) -> None:
        loaded = with_absolute_paths(load_profile(profile_name, overrides))
        count = ranks or ranks_here(loaded, gpu_count())
        if loaded.engine.backend == "single" and count > 1:
            raise DaemonError(
                f"{profile_name}: engine.backend: is single, which has one rank; leave --ranks out"
            )
        check_trainable(loaded, profile_name)
        if loaded.engine.backend == "fsdp":
            raise DaemonError(
                f"{profile_name}: engine.backend: fsdp is FSDP1, which is planned and not run; rehearse fsdp2"
            )
        self._profile = on_these_ranks(loaded, count)
        check_backend(self._profile, profile_name)
        check_training_stack()
        self._original = loaded
        self._limit_s = limit_s
        self._tell = tell
        self.verdict = Verdict(profile=loaded.name, backend=loaded.engine.backend, ranks=count)

    def perform(self, runs_dir: Path, *, keep: bool) -> Verdict:
        """Make a run, rehearse, and remove the run when all is well.

        Raises:
            TelemetryError: the runs directory cannot be written.
            DaemonError: the profile's own parts cannot be read.
            KeyboardInterrupt: after the job was ended and the run removed.
        """
        run = create_run(runs_dir, self._profile.name)
        try:
            self._rehearse(run)
        finally:
            # A rehearsal that came to no verdict has nothing to look at before its first attempt.
            if not (self._failed() or (keep and run.attempts())):
                shutil.rmtree(run.path, ignore_errors=True)
        self.verdict.run = str(run.path) if run.path.exists() else ""
        return self.verdict

    def _failed(self) -> list[Finding]:
        return [check for check in self.verdict.checks if not check.ok]

    def _rehearse(self, run: RunDirectory) -> None:
        checks = self.verdict.checks
        folder = run.path / FOLDER
        folder.mkdir(mode=0o700)
        profile = self._prepare(folder)
        if profile is None:
            return
        first = self._attempt(run, profile)
        if first is None:
            return
        self._note_device(first)
        launched = findings.launch(first, self._log(run))
        checks.append(launched)
        if launched.ok or first.self_tests:
            checks += findings.self_test(first)
        if launched.ok:
            made = [findings.steps(first), findings.evaluation(first), findings.checkpoints(run)]
            checks += made
            if all(check.ok for check in made):
                self._resume(run, profile, first, folder / "first")
        checks.append(findings.alerts(read_run(run)))
        self.verdict.ok = not self._failed()

    def _prepare(self, folder: Path) -> Profile | None:
        """The profile to run; None when there is no model to run it with."""
        self._tell("preparing a small model, pairs and adapter")
        file = folder / "profile.toml"
        file.write_text(to_toml(self._original, comments=False))
        try:
            prepared = prepare(file, folder, self.verdict.ranks)
        except PreparationFailed as failure:
            self.verdict.checks.append(Finding("preparation", False, str(failure)))
            return None
        self.verdict.notes += prepared.notes
        made = "model, pairs and adapter" if prepared.adapter else "model and pairs"
        self.verdict.checks.append(Finding("preparation", True, f"{made} are made"))
        return with_stand_ins(self._profile, prepared)

    def _attempt(self, run: RunDirectory, profile: Profile) -> Record | None:
        try:
            attempt, overdue = run_attempt(run, profile, self._limit_s, self._tell)
        except DaemonError as error:
            self.verdict.checks.append(Finding("launch", False, error.message))
            return None
        return replace(read_record(attempt, self.verdict.ranks), overdue=overdue)

    def _resume(self, run: RunDirectory, profile: Profile, first: Record, aside: Path) -> None:
        """Make the last step again, from the checkpoint before it."""
        last = run.checkpoints_dir / f"step-{STEPS:05d}"
        aside.mkdir(mode=0o700)
        last.rename(aside / last.name)
        adapter = aside / "adapter"
        if run.adapter_dir.is_dir():
            run.adapter_dir.rename(adapter)
        second = self._attempt(run, profile)
        if second is None:
            return
        checks = self.verdict.checks
        checks.append(findings.resume(second, self._log(run)))
        if checks[-1].ok:
            exact = findings.on_cpu(first)
            checks.append(findings.curve(first, second))
            checks.append(findings.final_adapter(adapter, run.adapter_dir, profile, exact=exact))

    def _note_device(self, record: Record) -> None:
        if record.start is None:
            return
        self.verdict.device = record.start.device
        if findings.on_cpu(record):
            self.verdict.notes.append(CPU_LIMITS)

    @staticmethod
    def _log(run: RunDirectory) -> str:
        return f"`dpo-daemon logs {run.path}`"
