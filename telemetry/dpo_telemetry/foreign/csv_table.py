"""CSV: a header and a row a line, as pandas, W&B and TensorBoard export it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.names import STEP_NAMES, metric_name, shows_training
from dpo_telemetry.foreign.rows import MAX_NUMBER_CHARS, Column, RowTaker, number
from dpo_telemetry.foreign.source import Source
from dpo_telemetry.series.columns import Floats
from dpo_telemetry.text import printable

FORMAT = "csv"
DELIMITERS = ",\t;|"
MAX_LINE_BYTES = 1 << 18
MAX_CELLS = 10_000
LINES_AT_ONCE = 4096

_DECIMAL_COMMA = re.compile(r"(\s*[-+]?\d+),(\d+(?:[eE][-+]?\d+)?\s*)")
_RANGE = re.compile(r"__(?:MIN|MAX)$")
_TENSORBOARD_HEADER = ["wall time", "step", "value"]
_TAG = re.compile(r"tag-(.+)$")
_GROUPS = ("rewards", "logps", "logits")
"""Groups of TRL's metrics: a file name has an underscore for their slash."""


def matches(source: Source) -> bool:
    """Whether the first line is a header that names a step or a metric, and the next has as many cells."""
    return _dialect(source) is not None


def read(source: Source) -> ForeignLog:
    """The log; lines with another number of cells are counted and passed over.

    Raises:
        TelemetryError: the columns are those of several runs.
    """
    log = ForeignLog(FORMAT)
    delimiter = _dialect(source) or ","
    lines = _lines(source, log)
    header = next(_rows(islice(lines, 1), delimiter), [])
    names = _names([cell.strip() for cell in header], source.path)
    taker = RowTaker(log)
    while batch := list(islice(lines, LINES_AT_ONCE)):
        columns: Sequence[Column] | None = _numbers(batch, delimiter, len(names))
        if columns is None:
            rows = [row for row in _rows(batch, delimiter) if len(row) == len(names)]
            log.lines_not_understood += len(batch) - len(rows)
            cells: Iterable[tuple[str, ...]] = zip(*rows, strict=True)
            columns = list(cells if delimiter == "," else map(_with_points, cells))
        if columns:
            taker.take_columns(names, columns)
    return log


def _dialect(source: Source) -> str | None:
    lines = [line for line in source.head.decode("utf-8", "replace").splitlines() if line.strip()][:2]
    for delimiter in DELIMITERS if lines else ():
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        header = [cell.strip() for cell in rows[0]]
        if len(header) < 2 or any(number(cell) is not None for cell in header):
            continue
        if (len(rows) == 1 or len(rows[1]) == len(header)) and any(map(_is_known, header)):
            return delimiter
    return None


def _is_known(cell: str) -> bool:
    name = metric_name(_column(cell)[1])
    return cell.lower() in STEP_NAMES or (name is not None and shows_training(name))


def _column(cell: str) -> tuple[str, str]:
    """Run and metric of a column; W&B's charts write both into it."""
    run, _, metric = _RANGE.sub("", cell).rpartition(" - ")
    return run, metric


def _names(header: list[str], path: Path) -> tuple[str, ...]:
    if [cell.lower() for cell in header] == _TENSORBOARD_HEADER:
        return ("wall time", "step", _tag(path))
    runs = sorted({run for run, _ in map(_column, header) if run})
    if len(runs) > 1:
        shown = ", ".join(printable(run, 40) for run in runs[:3]) + (", ..." if len(runs) > 3 else "")
        raise TelemetryError(f"{path}: holds {len(runs)} runs ({shown}); export one of them")
    # The smallest and largest values of what a chart draws as one point are no metrics of their own.
    return tuple("" if _RANGE.search(cell) else _column(cell)[1] for cell in header)


def _tag(path: Path) -> str:
    """The metric of TensorBoard's export, which only the file's name says."""
    found = _TAG.search(path.name.removesuffix(".gz").removesuffix(".csv"))
    if not found:
        return "value"
    kind, _, name = found[1].partition("_")
    if kind not in ("train", "eval"):
        kind, name = "train", found[1]
    for group in _GROUPS:
        if name.startswith(f"{group}_"):
            name = f"{group}/{name.removeprefix(f'{group}_')}"
    return f"{kind}/{name}"


def _lines(source: Source, log: ForeignLog) -> Iterator[str]:
    rest, too_long = b"", False
    for block in source.blocks():
        first, *more = block.split(b"\n")
        rest = b"" if too_long else rest + first
        for line in more:
            if not too_long and rest.strip():
                yield _text(rest)
            rest, too_long = line, False
        if len(rest) > MAX_LINE_BYTES:
            log.lines_not_understood += 1
            rest, too_long = b"", True
    if rest.strip():
        yield _text(rest)


def _text(line: bytes) -> str:
    # A quoted cell that goes on in the next line must not become one number with it.
    return line.replace(b"\0", b" ").decode("utf-8", "replace") + "\n"


def _numbers(lines: list[str], delimiter: str, columns: int) -> list[Floats] | None:
    """Columns of lines that hold nothing but numbers, quickly; None when any does not."""
    if max(map(len, lines)) > MAX_NUMBER_CHARS * columns:
        return None
    try:
        cells = np.loadtxt(lines, delimiter=delimiter, comments=None, ndmin=2)
    except ValueError:
        return None
    return list(np.ascontiguousarray(cells.T)) if cells.shape[1] == columns else None


def _with_points(column: tuple[str, ...]) -> tuple[str, ...]:
    """Cells with a decimal comma, as spreadsheets of half the world write them, with a point."""
    if not any("," in cell for cell in column):
        return column
    found = [_DECIMAL_COMMA.fullmatch(cell) for cell in column]
    return tuple(f"{m[1]}.{m[2]}" if m else cell for m, cell in zip(found, column, strict=True))


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            yield next(reader)[:MAX_CELLS]
        except StopIteration:
            return
        except csv.Error:
            continue
