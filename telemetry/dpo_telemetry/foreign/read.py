"""Finds out by content in which format a log is, and reads it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign import (
    csv_table,
    json_lines,
    json_rows,
    json_shape,
    notebook,
    stdout,
    tensorboard,
)
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.source import STANDARD_INPUT, Source, open_source

KNOWN_FILES = ("trainer_log.jsonl", "files/output.log", "output.log")
"""What LLaMA-Factory and W&B leave in a folder."""
MAX_FILES_LOOKED_AT = 1000


def read_foreign(path: Path) -> ForeignLog:
    """Read a log that is no run directory of ours; `-` is standard input.

    Raises:
        TelemetryError: it is empty, or too large for its format, or no log that is known.
        OSError: it cannot be read.
    """
    if path != STANDARD_INPUT and path.is_dir():
        files = _files_of_folder(path)
        if tensorboard.FILE_PATTERN.strip("*") in files[0].name:
            return tensorboard.read(tensorboard.open_files(files))
        path = files[0]
    with open_source(path) as source:
        if not source.head:
            raise TelemetryError(
                f"{path}: {'is damaged: it cannot be decompressed' if source.torn else 'is empty'}"
            )
        log = _reader(source)(source)
        log.lines_not_understood += source.torn
        return log


def _files_of_folder(folder: Path) -> list[Path]:
    """The log of a folder that is no run directory of ours: several files are one log."""
    state = json_rows.state_in_folder(folder)
    if state is not None:
        return [state]
    for name in KNOWN_FILES:
        if (folder / name).is_file():
            return [folder / name]
    if files := tensorboard.files_in_folder(folder):
        return files
    below = _folders_of_events(folder)
    if len(below) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in below[:3])
        more = ", ..." if len(below) > 3 else ""
        raise TelemetryError(
            f"{folder}: holds event files in {len(below)} folders ({names}{more}); give one of them"
        )
    if below:
        return tensorboard.files_in_folder(below[0])
    raise TelemetryError(
        f"{folder}: neither a run directory (run.json), nor a checkpoint ({json_rows.STATE_FILE}), "
        "nor a folder of event files; give the log file itself"
    )


def _folders_of_events(folder: Path) -> list[Path]:
    """Folders below that hold event files; those within another are of the same run (`add_hparams`)."""
    files = islice(folder.glob(f"**/{tensorboard.FILE_PATTERN}"), MAX_FILES_LOOKED_AT)
    found = {path.parent for path in files if path.is_file()}
    return sorted(path for path in found if not found.intersection(path.parents))


def _reader(source: Source) -> Callable[[Source], ForeignLog]:
    """The reader of the format that the first bytes show."""
    if tensorboard.matches(source.head):
        return lambda source: tensorboard.read(iter([source]))
    kind = json_shape.of(source)
    if kind == "document":
        return notebook.read if notebook.matches(source) else json_rows.read
    if kind == "lines":
        return json_lines.read
    return csv_table.read if csv_table.matches(source) else stdout.read
