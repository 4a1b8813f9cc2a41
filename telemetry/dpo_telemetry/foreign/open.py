"""Opens whatever a path holds: a run directory, a trainer state, or raw output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign import stdout, trainer_state
from dpo_telemetry.foreign.log import ForeignLog, StepSource
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.health.diagnosis import Diagnosis
from dpo_telemetry.health.findings import findings
from dpo_telemetry.health.rule import Context
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.series.columns import SeriesStore
from dpo_telemetry.text import printable

MAX_JSON_BYTES = 1 << 30
"""A trainer state is read whole; a larger file is refused."""
HEAD_BYTES = 4096


@dataclass(frozen=True)
class ReplayedLog:
    """A finished log, ours or anybody's, read and diagnosed."""

    source: str
    format: str
    series: SeriesStore
    step_source: StepSource
    attempts: int
    lines_not_understood: int
    alerts: list[HealthAlert]
    findings: list[Finding]


def open_log(path: Path) -> ReplayedLog:
    """Read and diagnose one log.

    Raises:
        TelemetryError: nothing is there, it cannot be read, or it holds no metrics.
    """
    try:
        log = _open_run(path) if (path / "run.json").is_file() else _diagnosed(path, _open_foreign(path))
    except OSError as error:
        raise TelemetryError(f"{path}: cannot be read: {error.strerror}") from error
    if not len(log.series.train) and not len(log.series.eval) and not log.alerts:
        raise TelemetryError(f"{path}: nothing to diagnose: it holds no row of metrics")
    return log


def _open_run(path: Path) -> ReplayedLog:
    model = read_run(RunDirectory(path.absolute()))
    alerts = model.alerts
    return ReplayedLog(
        source=printable(str(path)),
        format="run_directory",
        series=model.series,
        step_source="logged",
        attempts=len(model.attempts),
        lines_not_understood=model.damaged_lines + model.unknown_lines,
        alerts=alerts,
        findings=findings(alerts),
    )


def _open_foreign(path: Path) -> ForeignLog:
    if path.is_dir():
        state = trainer_state.in_folder(path)
        if state is None:
            raise TelemetryError(
                f"{path}: neither a run directory (run.json) nor a checkpoint ({trainer_state.FILE_NAME})"
            )
        path = state
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not head:
        raise TelemetryError(f"{path}: is empty")
    if trainer_state.matches(head) and path.stat().st_size <= MAX_JSON_BYTES:
        log = trainer_state.read(path, path.read_bytes())
        if log is not None:
            return log
    return stdout.read(path)


def _diagnosed(path: Path, log: ForeignLog) -> ReplayedLog:
    steps_known = log.step_source != "counted"
    diagnosis = Diagnosis(Context(beta=log.beta, loss_kind=log.loss_kind, steps_known=steps_known))
    for table in (log.series.train, log.series.eval):
        diagnosis.feed(table.rows(table.effective_rows()))
    return ReplayedLog(
        source=printable(str(path)),
        format=log.format,
        series=log.series,
        step_source=log.step_source,
        attempts=log.attempts,
        lines_not_understood=log.lines_not_understood,
        alerts=diagnosis.alerts(),
        findings=diagnosis.findings(),
    )
