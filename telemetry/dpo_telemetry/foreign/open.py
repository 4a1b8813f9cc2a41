"""Opens whatever a path holds: a run directory of ours, or a log in any format that is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign.log import ForeignLog, StepSource
from dpo_telemetry.foreign.read import read_foreign
from dpo_telemetry.foreign.source import STANDARD_INPUT
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.health.diagnosis import Diagnosis
from dpo_telemetry.health.findings import findings
from dpo_telemetry.health.rule import Context
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.series.columns import Floats, Mask, Rows, SeriesStore, Table
from dpo_telemetry.text import printable

ROWS_AT_ONCE = 1 << 16
"""What rules compute beside a chunk is as large as the chunk."""
MAX_CELLS = 1 << 26
"""A table with more is not laid out whole: rows that each bring a name of their own leave most of it empty."""
CELLS_AT_ONCE = 1 << 24


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
    """Read and diagnose one log; `-` is standard input.

    Raises:
        TelemetryError: nothing is there, it cannot be read, or it holds no metrics.
    """
    try:
        if path != STANDARD_INPUT and (path / "run.json").is_file():
            log = _open_run(path)
        else:
            foreign = read_foreign(path)
            if not foreign.shows_training:
                raise _nothing(path)
            log = _diagnosed(path, foreign)
    except OSError as error:
        raise TelemetryError(f"{path}: cannot be read: {error.strerror}") from error
    if not len(log.series.train) and not len(log.series.eval) and not log.alerts:
        raise _nothing(path)
    return log


def _nothing(path: Path) -> TelemetryError:
    return TelemetryError(f"{path}: nothing to diagnose: it holds no row of metrics")


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


def _chunks(table: Table) -> Iterator[Rows]:
    """The effective rows, part by part."""
    effective = table.effective_rows()
    if len(effective) * len(table.names()) > MAX_CELLS:
        yield from _chunks_of_wide(table)
        return
    rows = table.rows(effective)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        yield Rows(
            rows.steps[part],
            {name: values[part] for name, values in rows.columns.items()},
            {name: present[part] for name, present in rows.present.items()},
        )


def _chunks_of_wide(table: Table) -> Iterator[Rows]:
    """The same rows from what is there of each metric; a part has the metrics that have values in it."""
    kept = {}
    for name in table.names():
        series = table.effective(name)
        kept[name] = series.steps, series.values
    steps = np.unique(np.concatenate([at for at, _ in kept.values()]))
    at_once = max(1, min(ROWS_AT_ONCE, CELLS_AT_ONCE // len(kept)))
    for start in range(0, len(steps), at_once):
        part = steps[start : start + at_once]
        columns: dict[str, Floats] = {}
        masks: dict[str, Mask] = {}
        for name, (at, values) in kept.items():
            first, end = np.searchsorted(at, (part[0], part[-1] + 1))
            if first < end:
                places = np.searchsorted(part, at[first:end])
                columns[name] = column = np.full(len(part), np.nan)
                masks[name] = present = np.zeros(len(part), np.bool_)
                column[places], present[places] = values[first:end], True
        yield Rows(part, columns, masks)


def _diagnosed(path: Path, log: ForeignLog) -> ReplayedLog:
    steps_known = log.step_source != "counted"
    diagnosis = Diagnosis(Context(beta=log.beta, loss_kind=log.loss_kind, steps_known=steps_known))
    for table in (log.series.train, log.series.eval):
        for chunk in _chunks(table):
            diagnosis.feed(chunk)
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
