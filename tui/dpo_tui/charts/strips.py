"""Cells as the strips that Textual draws."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.cache import FIFOCache
from textual.strip import Strip

from dpo_tui.charts.picture import Picture


class _NoCache(FIFOCache[Any, Any]):
    """Keeps nothing, so that one serves every strip."""

    def set(self, key: Any, value: Any) -> None:
        """Forget."""

    __setitem__ = set

    def get(self, key: Any, default: Any = None) -> Any:
        """Never found."""
        return default


_NO_CACHE = _NoCache(0)
_NEW = Strip([], 0)
_PARTS = [
    (slot, _NO_CACHE if isinstance(getattr(_NEW, slot), FIFOCache) else getattr(_NEW, slot))
    for slot in Strip.__slots__
]
"""What a new strip holds, by slot."""


def to_strips(picture: Picture, styles: Sequence[Style]) -> list[Strip]:
    """One strip a row; `styles` are indexed by `Ink`.

    A blank takes the ink before it: what has no dot has no colour, and a run of cells that
    need not be cut is one segment less to make, to divide and to send.
    """
    height, width = picture.codes.shape
    if not width:
        return [Strip([], 0)] * height
    inks = picture.inks.ravel()
    inked = np.where(inks > 0, np.arange(height * width), 0)
    inked[::width] = np.arange(0, height * width, width)
    inks = inks[np.maximum.accumulate(inked, out=inked)]
    changes = np.empty(height * width, dtype=np.bool_)
    np.not_equal(inks[1:], inks[:-1], out=changes[1:])
    changes[::width] = True
    cuts = np.flatnonzero(changes)
    rows = np.searchsorted(cuts, np.arange(height + 1) * width).tolist()
    starts = [*cuts.tolist(), height * width]
    text = picture.text()
    segments = [
        Segment(text[start:end], styles[ink])
        for start, end, ink in zip(starts, starts[1:], inks[cuts].tolist(), strict=False)
    ]
    return [_short_lived(segments[first:last], width) for first, last in pairwise(rows)]


def _short_lived(segments: list[Segment], width: int) -> Strip:
    """A strip without caches: their making, and the collecting of them, is most of what a new strip costs."""
    strip = Strip.__new__(Strip)
    for slot, value in _PARTS:
        setattr(strip, slot, value)
    strip._segments = segments
    strip._cell_length = width
    return strip
