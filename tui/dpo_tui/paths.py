"""What a PATH on the command line means."""

from __future__ import annotations

import os
from pathlib import Path

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign.source import STANDARD_INPUT
from dpo_telemetry.rundir.find import find_run, runs_directory


def path_of(text: str, runs_dir: str | None) -> Path:
    """What is there under this path, standard input for `-`, else the run of this name.

    Raises:
        TelemetryError: no run has this name, and it means no file; or it is empty.
    """
    if not text:
        # As a path it would mean the working directory; in a script it is a variable that is not set.
        raise TelemetryError("a PATH is empty; give a file, a folder or the name of a run")
    path = Path(text)
    if path == STANDARD_INPUT or os.path.lexists(path) or path.name != text:
        return path
    try:
        return find_run(text, runs_directory(runs_dir)).path
    except TelemetryError as error:
        # A name with a suffix may as well mean a file, and a run's error would mislead.
        if path.suffix:
            return path
        raise TelemetryError(f"{error.format_message()}; no file has this name either") from None
