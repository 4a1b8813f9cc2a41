"""Memory of every rank and card over time, in a bounded number of points.

A track that is full halves its resolution: neighbours become one point that keeps the largest of each figure, so
that a peak of one step stays visible however long the run gets, and later samples are put together likewise.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpo_telemetry.events import Memory

Floats = NDArray[np.float64]

STEP = "step"
STANDING = "standing"
"""Sum of the measured components: tensors that stay between steps."""
ALLOCATED = "allocated"
PEAK_ALLOCATED = "peak_allocated"
RESERVED = "reserved"
RSS = "rss"
RANK_FIGURES = (STEP, STANDING, ALLOCATED, PEAK_ALLOCATED, RESERVED, RSS)
USED = "used"
"""What NVML says is used on the card, by anybody."""
CARD_FIGURES = (USED,)

MAX_POINTS = 4096
"""Of one track, while there are few of them."""
TOTAL_POINTS = 1 << 20
"""Of all tracks: 1,024 ranks and as many cards have 512 points each, at most 40 MB together."""
LEAST_POINTS = 64


@dataclass(frozen=True, slots=True)
class Samples:
    """One track as columns of equal length, in the order in which they were measured."""

    wall_s: Floats
    """Wall clock of the newest sample in each point, seconds."""
    figures: Mapping[str, Floats]
    """Bytes by name, and the step; NaN where a figure was not measured."""
    revision: int
    """Grows with every sample."""


class MemoryHistory:
    """The newest attempt's ranks and cards; what comes of an older attempt is left out."""

    def __init__(self) -> None:
        self.attempt = 0
        self._ranks: dict[int, _Track] = {}
        self._cards: dict[tuple[str, int], _Track] = {}
        self._standing: dict[int, dict[str, int]] = {}

    def measure(self, attempt: int, rank: int, memory: Memory) -> None:
        """Take what a rank measured."""
        if not self._is_newest(attempt):
            return
        standing = sum(memory.components.values()) if memory.components else None
        if standing is not None:
            known = self._standing.setdefault(rank, {})
            known[memory.phase] = max(standing, known.get(memory.phase, 0))
        row = (
            memory.step, standing, memory.allocated_bytes, memory.peak_allocated_bytes, memory.reserved_bytes,
            memory.rss_bytes,
        )  # fmt: skip
        track = self._ranks.get(rank)
        if track is None:
            track = self._ranks[rank] = _Track(RANK_FIGURES)
        track.add(memory.t, row, self._limit())

    def see_card(self, attempt: int, card: tuple[str, int], wall_s: float, used_bytes: int | None) -> None:
        """Take what NVML shows of a card; `card` is host and index."""
        if not self._is_newest(attempt):
            return
        track = self._cards.get(card)
        if track is None:
            track = self._cards[card] = _Track(CARD_FIGURES)
        track.add(wall_s, (used_bytes,), self._limit())

    @property
    def ranks(self) -> AbstractSet[int]:
        """Ranks that measured anything."""
        return self._ranks.keys()

    @property
    def cards(self) -> AbstractSet[tuple[str, int]]:
        """Cards that NVML showed."""
        return self._cards.keys()

    def rank(self, rank: int) -> Samples | None:
        """What a rank measured; None before it did."""
        track = self._ranks.get(rank)
        return track.samples() if track is not None else None

    def card(self, card: tuple[str, int]) -> Samples | None:
        """What NVML showed of a card; None before it did."""
        track = self._cards.get(card)
        return track.samples() if track is not None else None

    def standing_bytes(self, rank: int) -> Mapping[str, int]:
        """Largest sum of a rank's components by measured phase."""
        return dict(self._standing.get(rank, {}))

    def _is_newest(self, attempt: int) -> bool:
        if attempt > self.attempt:
            self.attempt = attempt
            self._ranks.clear()
            self._cards.clear()
            self._standing.clear()
        return attempt == self.attempt

    def _limit(self) -> int:
        tracks = len(self._ranks) + len(self._cards)
        return max(LEAST_POINTS, min(MAX_POINTS, TOTAL_POINTS // max(1, tracks)))


class _Track:
    """Rows of time and figures; each holds `_stride` samples, but for the newest, which is still filling."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._width = len(names) + 1
        self._rows = array("d")
        self._stride = 1
        self._in_newest = 0
        self._revision = 0

    def add(self, wall_s: float, figures: tuple[float | None, ...], limit: int) -> None:
        row = [wall_s, *(math.nan if figure is None else figure for figure in figures)]
        self._revision += 1
        if 0 < self._in_newest < self._stride:
            for at, value in enumerate(row, len(self._rows) - self._width):
                # A comparison with NaN is false: what is known wins.
                if value > self._rows[at] or self._rows[at] != self._rows[at]:
                    self._rows[at] = value
            self._in_newest += 1
            return
        while len(self._rows) >= limit * self._width:
            self._halve()
        self._rows.extend(row)
        self._in_newest = 1

    def samples(self) -> Samples:
        rows = self._table()
        figures = {name: rows[:, at].copy() for at, name in enumerate(self._names, 1)}
        return Samples(rows[:, 0].copy(), figures, self._revision)

    def _table(self) -> Floats:
        return np.array(self._rows, dtype=np.float64).reshape(-1, self._width)

    def _halve(self) -> None:
        rows = self._table()
        paired = len(rows) - len(rows) % 2
        halved = np.fmax(rows[0:paired:2], rows[1:paired:2])
        self._rows = array("d", np.concatenate((halved, rows[paired:])).tobytes())
        self._stride *= 2
