"""Cells of a chart and how text is put into them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_UTF_32 = f"utf-32-{sys.byteorder[0]}e"


class Ink(IntEnum):
    """What a cell shows; the widget gives each its colour."""

    BLANK = 0
    TITLE = 1
    LABEL = 2
    GRID = 3
    NONFINITE = 4
    TRAIN = 5
    EVAL = 6
    CHOSEN = 7
    REJECTED = 8
    TRAIN_RAW = 9
    CHOSEN_RAW = 10
    REJECTED_RAW = 11
    SUPERSEDED = 12
    RULE = 13
    CROSS = 14
    SELECTED = 15


RAW_INKS = {Ink.TRAIN: Ink.TRAIN_RAW, Ink.CHOSEN: Ink.CHOSEN_RAW, Ink.REJECTED: Ink.REJECTED_RAW}
"""Ink of the values under a smoothed line."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Where the lines of a chart lie among its cells, and over which steps."""

    left: int = 0
    """First column."""
    rows: int = 0
    """Rows of the plot; the first is row 1, under the title."""
    edges: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """First step of each dot column and one past the last, shape [2 x columns + 1]; empty without a plot."""

    def steps_of(self, column: int) -> tuple[int, int] | None:
        """First step of a column of cells, counted from the left edge of the chart, and one past its last."""
        cell = column - self.left
        if not 0 <= cell < len(self.edges) // 2:
            return None
        return int(self.edges[2 * cell]), int(self.edges[2 * cell + 2])

    def column_of(self, step: int) -> int | None:
        """Column of cells that shows a step; None where it is out of sight."""
        if not len(self.edges) or not self.edges[0] <= step < self.edges[-1]:
            return None
        return self.left + (int(np.searchsorted(self.edges, step, side="right")) - 1) // 2


@dataclass(frozen=True, slots=True)
class Picture:
    """Cells of a chart."""

    codes: NDArray[np.uint32]
    """Unicode code points, shape [height, width]."""
    inks: NDArray[np.uint8]
    """`Ink` of each cell, shape [height, width]."""
    plot: Plot = Plot()

    @classmethod
    def blank(cls, width: int, height: int) -> Picture:
        """Nothing but spaces."""
        shape = (max(height, 0), max(width, 0))
        return cls(np.full(shape, ord(" "), dtype=np.uint32), np.zeros(shape, dtype=np.uint8))

    def text(self) -> str:
        """All rows in one string."""
        return self.codes.tobytes().decode(_UTF_32)

    def rows(self) -> list[str]:
        """The text of each row."""
        height, width = self.codes.shape
        text = self.text()
        return [text[row * width : (row + 1) * width] for row in range(height)]

    def put(self, row: int, column: int, text: str, ink: Ink) -> None:
        """Write `text`, as far as there is room; what could steer a terminal becomes spaces."""
        text = text[: max(0, self.codes.shape[1] - column)]
        if not text.isprintable():
            text = "".join(character if character.isprintable() else " " for character in text)
        if text:
            self.codes[row, column : column + len(text)] = np.frombuffer(text.encode(_UTF_32), np.uint32)
            self.inks[row, column : column + len(text)] = ink

    def put_centred(self, row: int, text: str) -> None:
        """Write `text` in the middle of a row."""
        self.put(row, max(0, (self.codes.shape[1] - len(text)) // 2), text, Ink.LABEL)
