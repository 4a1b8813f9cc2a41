"""A JSON document that holds a list of log rows: Hugging Face's `trainer_state.json` and its like.

The list is found by its look, a bracket before an object, and read as it comes: neither the
document nor the list is ever held whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign import json_text
from dpo_telemetry.foreign.json_columns import ColumnDecoder, Columns
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.names import metric_name, shows_training
from dpo_telemetry.foreign.rows import RowTaker, number
from dpo_telemetry.foreign.source import Source

FORMAT = "json"
STATE_FORMAT = "trainer_state"
STATE_KEY = b"log_history"
STATE_FILE = "trainer_state.json"

MAX_ROW_BYTES = 1 << 16
"""A longer row is not understood."""
MAX_LISTS = 1000
"""So many lists are looked at; a document that hides its rows behind more has none."""
ROWS_LOOKED_AT = 5
"""A list is one of log rows when one of its first objects is."""

_LIST = re.compile(rb"\[\s{0,200}(?=\{)")
_STATE = re.compile(rb'"log_history"\s{0,20}:\s{0,200}(?=([^\s]))')
_KINDS = {b"{": "dict", b'"': "str", b"n": "null", b"t": "bool", b"f": "bool"}
_BLANK = re.compile(r"[, \t\r\n]*")
_COMMA = re.compile(r"\s*,\s*")
_NEXT_ROW = re.compile(r"\}\s{0,200},\s{0,200}(?=\{)")
_DECODER = json.JSONDecoder()


def read(source: Source) -> ForeignLog:
    """The log; it has no rows when the document holds no list of them.

    Raises:
        TelemetryError: `log_history` is there and is no list.
    """
    state = STATE_KEY in source.head
    log = ForeignLog(STATE_FORMAT if state else FORMAT)
    rows = _Buffer(source.blocks())
    if not (_find_state(rows, source.path) if state else _find_list(rows)):
        return log
    taker = RowTaker(log, logged=True if state else None)
    for batch in _batches(rows, log):
        if isinstance(batch, Columns):
            taker.take_columns(*batch)
        else:
            taker.take(batch.rows, plain=batch.plain)
    log.shows_training |= state
    return log


def state_in_folder(folder: Path) -> Path | None:
    """The state file of a checkpoint folder, or of the newest checkpoint of an output folder."""
    if (folder / STATE_FILE).is_file():
        return folder / STATE_FILE
    checkpoints = [
        path for path in folder.glob(f"checkpoint-*/{STATE_FILE}") if path.parent.name[11:].isdecimal()
    ]
    return max(checkpoints, key=lambda path: int(path.parent.name[11:]), default=None)


class _Buffer:
    """What is read of the document and not yet used."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self.data = b""
        self.ended = False

    def more(self) -> bool:
        """Read on; whether there was anything."""
        block = next(self._blocks, None)
        self.ended = block is None
        self.data += block or b""
        return not self.ended

    def drop(self, n: int) -> None:
        """Forget the first `n` bytes."""
        self.data = self.data[n:]


def _find_state(rows: _Buffer, path: Path) -> bool:
    while rows.more():
        if found := _STATE.search(rows.data):
            if found[1] != b"[":
                raise TelemetryError(
                    f"{path}: log_history: must be a list of rows, is a {_KINDS.get(found[1], 'number')}"
                )
            rows.drop(found.end() + 1)
            return True
        rows.drop(max(0, len(rows.data) - 1024))
    return False


def _find_list(rows: _Buffer) -> bool:
    looked_at = 0
    while rows.more():
        at = 0
        while found := _LIST.search(rows.data, at):
            at = found.end()
            while len(rows.data) - at < MAX_ROW_BYTES and rows.more():
                pass
            if _is_log(rows.data[at : at + MAX_ROW_BYTES]):
                rows.drop(at)
                return True
            looked_at += 1
            if looked_at >= MAX_LISTS:
                return False
        rows.drop(max(at, len(rows.data) - 1024))
    return False


def _is_log(data: bytes) -> bool:
    text, at = data.decode("utf-8", "replace"), 0
    for _ in range(ROWS_LOOKED_AT):
        try:
            row, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return False
        if isinstance(row, dict) and is_row(row):
            return True
        if (after := _COMMA.match(text, at)) is None:
            return False
        at = after.end()
    return False


def is_row(row: dict[str, Any]) -> bool:
    """Whether an object holds a metric that training loops log."""
    return any(
        number(value) is not None and (name := metric_name(key)) is not None and shows_training(name)
        for key, value in row.items()
    )


class _Rows(NamedTuple):
    """Objects of the list, and whether all their values are floats, text or None."""

    rows: list[Any]
    plain: bool


def _batches(rows: _Buffer, log: ForeignLog) -> Iterator[Columns | _Rows]:
    """The objects of the list at whose beginning the buffer stands."""
    decoder = ColumnDecoder()
    while True:
        end = rows.data.find(b"]")
        cut = end if end >= 0 else rows.data.rfind(b"}") + 1
        endless = cut <= 0 and len(rows.data) > MAX_ROW_BYTES
        flat = None if endless else _flat(rows.data[:cut], decoder)
        if flat is not None:
            yield flat
            rows.drop(cut)
            ended = end >= 0
        else:
            batch, ended = _one_by_one(rows, log)
            yield _Rows(batch, plain=False)
        if ended:
            return
        if not rows.more():
            # A list without an end: the document is torn.
            log.lines_not_understood += 1
            return


def _flat(data: bytes, decoder: ColumnDecoder) -> Columns | _Rows | None:
    """Rows without lists or objects in them, all at once; None when that is not what they are."""
    block = b"[" + data.strip(b", \t\r\n") + b"]"
    if (columns := decoder.of_list(block)) is not None:
        return columns
    try:
        return _Rows(*json_text.decode_list(block))
    except json_text.NOT_JSON:
        return None


def _one_by_one(rows: _Buffer, log: ForeignLog) -> tuple[list[Any], bool]:
    """Rows of any form as far as they are complete; whether the list ended."""
    found: list[Any] = []
    at, ended = 0, False
    while not ended and at < len(rows.data):
        window = rows.data[at : at + 2 * MAX_ROW_BYTES].decode("utf-8", "surrogateescape")
        used, ended = _rows_of(window, found, log)
        if not used:
            break
        at += len(window[:used].encode("utf-8", "surrogateescape"))
    rows.drop(at)
    return found, ended


def _rows_of(text: str, found: list[Any], log: ForeignLog) -> tuple[int, bool]:
    """Take the complete rows off the beginning of a text; how far it is used, and whether the list ended."""
    at = 0
    while True:
        blank = _BLANK.match(text, at)
        start = blank.end() if blank else at
        if start == len(text) or text[start] == "]":
            return start, start < len(text)
        after = _NEXT_ROW.search(text, start)
        row, end = _row_at(text, start, after.start() + 1 if after else len(text))
        if end:
            found.append(row)
            at = end
        elif after is None and len(text) - start < MAX_ROW_BYTES:
            return at, False
        else:
            log.lines_not_understood += 1
            at = after.end() if after else len(text)


def _row_at(text: str, start: int, flat_end: int) -> tuple[Any, int]:
    """The row at a place and where it ends, 0 for none; one without lists in it ends at `flat_end`."""
    # A decoder that fails counts the lines of all it was given: it is given a row where that will do.
    for part in (text[start:flat_end], text[start:]):
        try:
            row, size = _DECODER.raw_decode(part)
        except (ValueError, RecursionError):
            if "[" not in part:
                break
        else:
            return row, start + size
    return None, 0
