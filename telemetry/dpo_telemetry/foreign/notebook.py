"""A notebook's output cells: what was printed, and the Trainer's table of losses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import msgspec

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign import stdout
from dpo_telemetry.foreign.json_text import NOT_JSON
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.rows import RowTaker, number
from dpo_telemetry.foreign.source import Source
from dpo_telemetry.foreign.surroundings import Surroundings

FORMAT = "notebook"
MAX_BYTES = 64 << 20
"""A notebook is read whole."""
MAX_COLUMNS = 500

Text = str | list[str]


class _Data(msgspec.Struct):
    html: Text = msgspec.field(default="", name="text/html")
    plain: Text = msgspec.field(default="", name="text/plain")


class _Output(msgspec.Struct):
    text: Text = ""
    data: _Data = msgspec.field(default_factory=_Data)


class _Cell(msgspec.Struct):
    cell_type: str = ""
    source: Text = ""
    outputs: list[_Output] = msgspec.field(default_factory=list)


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


_TAGS = re.compile(r"<(/?table|tr|t[hd])\b[^<>]{0,300}>([^<]{0,300})", re.IGNORECASE)
_PROGRESS = re.compile(r"\[\s{0,20}(\d{1,12})/(\d{1,12})\s[^\]<]{0,100}Epoch\s{1,4}[\d.]{1,12}/(\d{1,9})\]")


def matches(source: Source) -> bool:
    """Whether a JSON document is a notebook."""
    return b'"cell_type"' in source.head or b'"nbformat"' in source.head[:1000]


def read(source: Source) -> ForeignLog:
    """The log: rows that were printed, else those of the Trainer's tables.

    Raises:
        TelemetryError: it is too large, or no notebook.
    """
    data = source.whole(MAX_BYTES)
    try:
        notebook = msgspec.json.decode(data, type=_Notebook)
    except NOT_JSON as error:
        raise TelemetryError(f"{source.path}: looks like a notebook and is none: {error}") from None
    surroundings = Surroundings()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            surroundings.look(_text(cell.source).splitlines())
    log = stdout.read_blocks(_printed(notebook), ForeignLog(FORMAT), surroundings)
    if not len(log.series.train) and not len(log.series.eval):
        tables = ForeignLog(FORMAT, lines_not_understood=log.lines_not_understood, shows_training=True)
        tables.beta, tables.loss_kind = log.beta, log.loss_kind
        _read_tables(notebook, tables)
        return tables
    return log


def _outputs(notebook: _Notebook) -> Iterator[_Output]:
    for cell in notebook.cells:
        yield from cell.outputs


def _printed(notebook: _Notebook) -> Iterator[bytes]:
    for output in _outputs(notebook):
        for text in (output.text, output.data.plain):
            yield _text(text).encode("utf-8", "replace") + b"\n"


def _text(text: Text) -> str:
    return text if isinstance(text, str) else "".join(text)


def _read_tables(notebook: _Notebook, log: ForeignLog) -> None:
    taker: RowTaker | None = None
    for output in _outputs(notebook):
        html = _text(output.data.html)
        for header, rows in _tables(html):
            steps_per_epoch = None if header[0] == "Step" else _steps_per_epoch(html)
            if taker is None:
                taker = RowTaker(log, logged=header[0] == "Step" or steps_per_epoch is not None)
            if steps_per_epoch is not None:
                log.step_source = "progress bar"
            names = tuple(_name(title) for title in header)
            taker.take([_row(names, row, steps_per_epoch) for row in rows])


def _tables(html: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of each table of losses."""
    rows: list[list[str]] = []
    for found in _TAGS.finditer(html):
        kind = found[1].lower()
        if kind == "table":
            rows = []
        elif kind == "tr":
            rows.append([])
        elif kind == "/table":
            filled = [row for row in rows if row]
            if len(filled) > 1 and filled[0][0] in ("Step", "Epoch") and "Training Loss" in filled[0]:
                yield filled[0], filled[1:]
            rows = []
        elif rows and len(rows[-1]) < MAX_COLUMNS:
            rows[-1].append(unescape(found[2]).strip())


def _name(title: str) -> str:
    """TRL's name of a column: the Trainer leaves `eval_` out and writes the rest as words."""
    if title in ("Step", "Epoch", "Training Loss", "Validation Loss"):
        return title
    return "eval_" + title.lower().replace(" ", "_")


def _row(names: tuple[str, ...], cells: list[str], steps_per_epoch: int | None) -> dict[str, str | float]:
    row: dict[str, str | float] = dict(zip(names, cells, strict=False))
    epoch = number(row.get("Epoch"))
    if steps_per_epoch is not None and epoch is not None:
        row["Step"] = epoch * steps_per_epoch
    return row


def _steps_per_epoch(html: str) -> int | None:
    """Known when the bar has come to its end and its epochs are whole."""
    found = _PROGRESS.search(html)
    if found is None or int(found[3]) == 0:
        return None
    steps, rest = divmod(int(found[2]), int(found[3]))
    return steps if rest == 0 and steps > 0 else None
