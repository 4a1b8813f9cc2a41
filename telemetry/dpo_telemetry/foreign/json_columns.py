"""Rows with the same names, a block at a time: as columns, without a dict for each."""

from __future__ import annotations

import contextlib
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np

from dpo_telemetry.foreign import json_text
from dpo_telemetry.series.columns import Floats

MIN_BYTES = 1 << 16
"""Fewer are read as rows: a layout has a price of its own."""
MAX_NAMES = 256
"""Rows with more are read as rows."""
MAX_FAILURES = 3
"""After so many blocks in a row with rows of several kinds, a log is read as rows."""


class Columns(NamedTuple):
    """A block of n rows."""

    names: tuple[str, ...]
    values: list[Floats]
    """By name, shape (n,)."""


class ColumnDecoder:
    """Decodes blocks of one log; what it took for the last layout serves the next block."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] | None = None
        self._row: type[msgspec.Struct] | None = None
        self._quotes = False
        self._failures = 0

    def of_lines(self, block: bytes) -> Columns | None:
        """Rows of complete lines, or None where any line is anything but a flat row of numbers like the first."""
        return self._decode(block, block[: block.find(b"\n")], is_list=False)

    def of_list(self, block: bytes) -> Columns | None:
        """Rows of a list, with its brackets; None as for lines."""
        return self._decode(block, block[1 : block.find(b"}") + 1], is_list=True)

    def _decode(self, block: bytes, first: bytes, *, is_list: bool) -> Columns | None:
        if len(block) < MIN_BYTES or self._failures >= MAX_FAILURES:
            return None
        with contextlib.suppress(*json_text.NOT_JSON, TypeError):
            first_row = json_text.decode(first)
            if type(first_row) is dict and 0 < len(first_row) <= MAX_NAMES:
                found = self._columns(self._rows(block, tuple(first_row), is_list))
                self._failures = 0
                return found
        self._failures += 1
        return None

    def _rows(self, block: bytes, names: tuple[str, ...], is_list: bool) -> list[Any]:
        if names != self._names or self._row is None:
            # All fields required and no other allowed: what decodes has these names and no others.
            fields = [(f"c{at}", float | str, msgspec.field(name=name)) for at, name in enumerate(names)]
            self._row = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
            self._names = names
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[self._row] if is_list else self._row)  # type: ignore[name-defined]
        decode = decoder.decode if is_list else decoder.decode_lines
        if not self._quotes:
            with contextlib.suppress(*json_text.NOT_JSON):
                return decode(block)
        rows = decode(json_text.quoted(block))
        self._quotes = True
        return rows

    def _columns(self, rows: list[Any]) -> Columns:
        assert self._names is not None
        shape = (len(rows), len(self._names))
        # Text that means a number, NaN among it, numpy reads as what it says.
        cells = chain.from_iterable(map(msgspec.structs.astuple, rows))
        table = np.fromiter(cells, np.float64, shape[0] * shape[1]).reshape(shape)
        return Columns(self._names, list(np.ascontiguousarray(table.T)))
