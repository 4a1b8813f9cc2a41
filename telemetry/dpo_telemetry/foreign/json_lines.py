"""JSON lines: a row an object and line, LLaMA-Factory's `trainer_log.jsonl` among them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dpo_telemetry.foreign import json_text
from dpo_telemetry.foreign.json_columns import ColumnDecoder
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.rows import RowTaker
from dpo_telemetry.foreign.source import Source

FORMAT = "json_lines"
MAX_LINE_BYTES = 1 << 18
"""A longer line is not understood."""


def read(source: Source) -> ForeignLog:
    """The log; lines that are no objects are counted and passed over."""
    log = ForeignLog(FORMAT)
    taker, decoder = RowTaker(log), ColumnDecoder()
    for lines in _complete_lines(source.blocks(), log):
        if (columns := decoder.of_lines(lines)) is not None:
            taker.take_columns(*columns)
            continue
        rows, plain = _rows(lines, log)
        taker.take(rows, plain=plain)
    return log


def _complete_lines(blocks: Iterator[bytes], log: ForeignLog) -> Iterator[bytes]:
    rest, too_long = b"", False
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            if too_long:
                skipped = block.index(b"\n") + 1
                yield block[skipped:end]
            else:
                yield rest + block[:end]
            rest, too_long = block[end:], False
        elif not too_long:
            rest += block
        if len(rest) > MAX_LINE_BYTES:
            log.lines_not_understood += 1
            rest, too_long = b"", True
    if rest.strip():
        yield rest


def _rows(lines: bytes, log: ForeignLog) -> tuple[list[dict[str, Any]], bool]:
    try:
        rows, plain = json_text.decode_lines(lines)
    except json_text.NOT_JSON:
        rows, plain = [], False
        for line in lines.splitlines():
            row = None
            if line.lstrip().startswith(b"{"):
                with contextlib.suppress(*json_text.NOT_JSON):
                    row = json_text.decode(line)
            if isinstance(row, dict):
                rows.append(row)
            elif line.strip():
                log.lines_not_understood += 1
    if not plain:
        rows = [_unfolded(row) if type(row.get("metrics")) is dict else row for row in rows]
    return rows, plain


def _unfolded(row: dict[str, Any]) -> dict[str, Any]:
    """A row that keeps its metrics in an object of their own."""
    metrics: dict[str, Any] = row["metrics"]
    return {name: row[name] for name in ("step", "global_step", "epoch") if name in row} | metrics
