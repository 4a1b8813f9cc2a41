"""The characters a chart is drawn with, for terminals that know Unicode and for those that do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DOT_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)
"""Bit of each dot of a Braille cell, shape [4 rows, 2 columns] (Unicode block U+2800)."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Everything a chart draws besides letters and digits."""

    cells: NDArray[np.uint32]
    """Code point of each dot pattern, shape [256]."""
    not_a_number: str
    above: str
    """Marks +inf, in the top row."""
    below: str
    """Marks -inf, in the bottom row."""
    marker: str
    """A point of a sparse series."""
    grid: str
    legend: str
    ellipsis: str
    rule: str
    """Where an attempt began."""
    cross: str
    """The step that is pointed at."""
    pointer: str
    """Before the title of the chart that the keys act on."""


def _ascii_cells() -> NDArray[np.uint32]:
    """Nearest ASCII character for each dot pattern."""
    top, middle, bottom = 0x01 | 0x08, 0x02 | 0x10 | 0x04 | 0x20, 0x40 | 0x80
    shapes = {(1, 0, 0): "'", (0, 1, 0): "-", (0, 0, 1): ".", (1, 1, 0): "'", (0, 1, 1): "."}
    cells = [" "]
    for dots in range(1, 256):
        rows = (bool(dots & top), bool(dots & middle), bool(dots & bottom))
        cells.append(shapes.get(tuple(map(int, rows)), "|"))  # type: ignore[arg-type]
    return np.array([ord(cell) for cell in cells], dtype=np.uint32)


UNICODE = Glyphs(
    cells=np.arange(256, dtype=np.uint32) + 0x2800,
    not_a_number="×",
    above="▲",
    below="▼",
    marker="●",
    grid="┈",
    legend="━",
    ellipsis="…",
    rule="┊",
    cross="│",
    pointer="▸",
)
ASCII = Glyphs(
    cells=_ascii_cells(),
    not_a_number="x",
    above="^",
    below="v",
    marker="o",
    grid=" ",
    legend="-",
    ellipsis="~",
    rule=":",
    cross="|",
    pointer=">",
)
