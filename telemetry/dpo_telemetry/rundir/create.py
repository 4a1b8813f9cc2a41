"""Making a run and its attempts: whole or not at all, and for the owner only."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from pathlib import Path

import msgspec

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.identity import host_name
from dpo_telemetry.rundir.layout import Attempt, RunDirectory, RunInfo


def create_run(runs_dir: Path, profile_name: str) -> RunDirectory:
    """Make `RUNS_DIR/YYYYMMDD-HHMM-PROFILE`; a name that is taken gets a counter.

    Raises:
        TelemetryError: the folder cannot be written.
    """
    stem = f"{time.strftime('%Y%m%d-%H%M')}-{profile_name}"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        for counter in range(1, 1000):
            name = stem if counter == 1 else f"{stem}-{counter}"
            path = runs_dir.absolute() / name
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            return _fill(RunDirectory(path))
    except OSError as error:
        raise TelemetryError(f"{runs_dir}: a run cannot be made here: {error.strerror}") from error
    raise TelemetryError(f"{runs_dir}: holds 999 runs named {stem} already; give --runs-dir")


def _fill(run: RunDirectory) -> RunDirectory:
    for folder in (run.attempts_dir, run.control_dir, run.checkpoints_dir):
        folder.mkdir(mode=0o700)
    info = RunInfo(id=uuid.uuid4().hex, name=run.name, created=time.time(), host=host_name())
    write_atomically(run.run_file, msgspec.json.encode(info))
    return run


def create_attempt(run: RunDirectory, profile_toml: str, plan_json: bytes) -> Attempt:
    """Make the next attempt with its profile and plan; it appears under its number when complete."""
    staging = Path(tempfile.mkdtemp(prefix=".attempt-", dir=run.attempts_dir))
    (staging / "events").mkdir(mode=0o700)
    (staging / "logs").mkdir(mode=0o700)
    write_atomically(staging / "profile.toml", profile_toml.encode())
    write_atomically(staging / "plan.json", plan_json)
    existing = run.attempts()
    attempt = run.attempt(existing[-1].number + 1 if existing else 1)
    staging.rename(attempt.path)
    return attempt


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, so that a reader sees the old bytes or the new ones."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with staging.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
