"""Which run is meant: a directory, its name, a unique prefix of it, or nothing at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.rundir.live import live_runs

RUNS_DIR_VARIABLE = "DPO_RUNS_DIR"


def runs_directory(option: str | Path | None) -> Path:
    """Where runs live: `--runs-dir`, else $DPO_RUNS_DIR, else ./runs."""
    return Path(option or os.environ.get(RUNS_DIR_VARIABLE) or "runs")


def list_runs(runs_dir: Path) -> list[RunDirectory]:
    """Runs under `runs_dir` and live ones from elsewhere, oldest first."""
    try:
        here = [RunDirectory(path.absolute()) for path in runs_dir.iterdir()]
    except OSError:
        here = []
    made = {os.path.realpath(run.path): (_made_at(run), run) for run in [*here, *live_runs()]}
    known = [(made_at, run) for made_at, run in made.values() if made_at is not None]
    return [run for _, run in sorted(known, key=lambda pair: (pair[0], pair[1].name))]


def _made_at(run: RunDirectory) -> float | None:
    """When a run was made, seconds since the epoch; None where there is no run, or not for this user."""
    try:
        return run.run_file.stat().st_mtime
    except OSError:
        return None


def find_run(text: str | None, runs_dir: Path, *, live_only: bool = False) -> RunDirectory:
    """The run that `text` means; nothing means the only live one, else the newest.

    Raises:
        TelemetryError: no such run, several that fit, or (with `live_only`) none that is live.
    """
    if text is None:
        return _unnamed(runs_dir, live_only)
    if os.sep in text or text in (".", "..") or Path(text).joinpath("run.json").exists():
        run = RunDirectory(Path(os.path.abspath(text)))
        run.info()
        return run
    runs = list_runs(runs_dir)
    exact = [run for run in runs if run.name == text]
    fitting = exact or [run for run in runs if run.name.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise TelemetryError(f"{text}: fits {len(fitting)} runs ({_names(fitting)}); name one of them")
    if Path(text).exists():
        raise TelemetryError(f"{text}: not a run directory (it has no run.json)")
    known = f"known are {_names(runs)}" if runs else "there is none yet"
    raise TelemetryError(f"{text}: no such run under {runs_dir}; {known}")


def _unnamed(runs_dir: Path, live_only: bool) -> RunDirectory:
    live = live_runs()
    if len(live) == 1:
        return live[0]
    if live_only and live:
        raise TelemetryError(f"{len(live)} runs are live ({_names(live)}); name one of them")
    if live_only:
        raise TelemetryError("no run is live; see `dpo-daemon list`")
    runs = live or list_runs(runs_dir)
    if not runs:
        raise TelemetryError(f"{runs_dir}: holds no run; start one with `dpo-daemon start --profile demo`")
    return runs[-1]


def _names(runs: Iterable[RunDirectory]) -> str:
    names = [run.name for run in runs]
    return ", ".join(names[-5:]) + (" and others" if len(names) > 5 else "")
