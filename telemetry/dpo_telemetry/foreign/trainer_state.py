"""Hugging Face's `trainer_state.json`: a JSON object whose `log_history` is a list of rows."""

from __future__ import annotations

import json
from pathlib import Path

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign.log import SUMMARY_KEYS, ForeignLog, as_step, numbers

FORMAT = "trainer_state"
FILE_NAME = "trainer_state.json"


def matches(head: bytes) -> bool:
    """Whether a file that begins with `head` may be one; `read` decides."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"' in head[:200]


def read(path: Path, data: bytes) -> ForeignLog | None:
    """The log; None when the file is no JSON object with a `log_history`.

    Raises:
        TelemetryError: `log_history` is there and is no list of rows.
    """
    try:
        state = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(state, dict) or "log_history" not in state:
        return None
    history = state["log_history"]
    if not isinstance(history, list):
        raise TelemetryError(f"{path}: log_history: must be a list of rows, is a {type(history).__name__}")
    log = ForeignLog(FORMAT, step_source="logged")
    for row in history:
        step = as_step(row.get("step")) if isinstance(row, dict) else None
        if step is None:
            log.lines_not_understood += 1
            continue
        metrics = {name: value for name, value in numbers(row).items() if name != "step"}
        if not any(key in metrics for key in SUMMARY_KEYS):
            log.add(step, metrics)
    return log


def in_folder(folder: Path) -> Path | None:
    """The state file of a checkpoint folder, or of the newest checkpoint of an output folder."""
    if (folder / FILE_NAME).is_file():
        return folder / FILE_NAME
    checkpoints = [
        path for path in folder.glob(f"checkpoint-*/{FILE_NAME}") if path.parent.name[11:].isdigit()
    ]
    return max(checkpoints, key=lambda path: int(path.parent.name[11:]), default=None)
