"""Progress bars of tqdm, which say at which step a row was printed."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BAR = re.compile(r"%\|[^|]{0,400}\|\s{0,20}(\d{1,12})/(\d{1,12})\s{0,4}\[[^\]]{0,200}\]?")
_ALONE = re.compile(
    r"\s{0,3}\d{1,3}%\|[^|]{0,400}\|\s{0,20}(\d{1,12})/(\d{1,12})\s{0,4}\[[^\]%]{0,200}\]?\s{0,20}"
)
_PERCENT = re.compile(r"(?<![\d.])(?<!:)(?<!: )(?<!:  )(?<!:   )\d{1,3}$")
_LABEL = re.compile(r"\s{0,8}(?:\[(?:rank|default)?\d{1,6}\]:|[\w.-]{0,60}\d:(?!\d)) ?")
"""Whose line it is, as torchrun, Slurm and pdsh write before it; a description of work ends in no digit."""


def bars_in(text: str) -> Iterator[tuple[int, int, int]]:
    """Step and total of each bar, and where it ends.

    Only bars without a description: training has none.
    """
    for bar in _BAR.finditer(text):
        if _PERCENT.search(text[max(0, bar.start() - 8) : bar.start()]):
            yield int(bar[1]), int(bar[2]), bar.end()


def bar_alone(text: str) -> tuple[int, int] | None:
    """Step and total where a bar without a description is all there is: what most pieces of an output are."""
    bar = _ALONE.fullmatch(text)
    return (int(bar[1]), int(bar[2])) if bar else None


def unlabelled(text: str) -> str:
    """The text without the label of the process or host that printed it."""
    label = _LABEL.match(text)
    return text[label.end() :] if label else text


class Bars:
    """Tells training's bar from those of other work by its total, which a training row gives away."""

    def __init__(self) -> None:
        self.before: tuple[int, int] | None = None
        """Step and total of the bar that nothing but blanks has followed so far."""
        self._total: int | None = None
        self._step: int | None = None
        self._fresh = False
        self._training = False
        self._beside: tuple[int, int] | None = None

    def see(self, step: int, total: int) -> bool:
        """Note a bar; whether it is training's."""
        self.before = (step, total)
        if self._training and self._total is None:
            self._total = total
        if total == self._total:
            self._step, self._fresh = step, True
            return True
        if self._training and self._beside is None:
            self._beside = (step, total)
        return False

    def row_begins(self, *, training: bool) -> None:
        """A row was printed; the bar right before it counts where none follows."""
        self._training = training
        self._beside = self.before if training else None
        self.before = None

    def row_ends(self) -> int | None:
        """The step to give the row; None when no bar says."""
        if self._training and not self._fresh and self._beside is not None:
            # Another run in the same output counts to a total of its own.
            self._step, self._total = self._beside
        if self._training:
            self._training = self._fresh = False
        return self._step
