"""A run read to where its files end now, keeper or not."""

from __future__ import annotations

from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.layout import RunDirectory


def read_run(run: RunDirectory) -> RunModel:
    """Everything that the run directory says now.

    Raises:
        TelemetryError: this is no run directory.
    """
    run.info()
    source, model = DirectorySource(run), RunModel()
    while chunks := source.poll():
        model.apply(chunks)
    return model
