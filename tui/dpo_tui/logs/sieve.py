"""Which lines of a log are shown, and which of them match: kept up as the log grows."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

from dpo_tui.logs.levels import Level
from dpo_tui.views.logs import LogsView


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to see of a log."""

    min_level: Level = Level.NONE
    pattern: re.Pattern[str] | None = None
    only_matching: bool = False


def pattern_of(text: str) -> re.Pattern[str] | None:
    """A regular expression, or the text itself where it is none; capitals matter where there are any.

    None for an empty text.
    """
    if not text:
        return None
    flags = re.NOFLAG if any(map(str.isupper, text)) else re.IGNORECASE
    try:
        return re.compile(text, flags)
    except (re.error, RecursionError, OverflowError):
        return re.compile(re.escape(text), flags)


class Sieve:
    """Looks at each line once."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """Numbers of the lines that are shown, rising."""
        self.matches: list[int] = []
        """Numbers of those that match the pattern, rising."""
        self._question = Question()
        self._book = 0
        self._seen = 0

    def update(self, view: LogsView, question: Question) -> bool:
        """Take in what is new; whether the lines seen before are still sifted in the same way."""
        same = question == self._question and view.book == self._book
        if not same:
            self._question, self._book = question, view.book
            self.numbers, self.matches, self._seen = [], [], view.first
        for numbers in (self.numbers, self.matches):
            del numbers[: bisect_left(numbers, view.first)]
            del numbers[bisect_left(numbers, self._seen) :]
        begin = max(self._seen, view.first)
        for number, line in enumerate(view.lines[begin - view.first :], begin):
            if line.level < question.min_level:
                continue
            matching = question.pattern is not None and question.pattern.search(line.text) is not None
            if matching:
                self.matches.append(number)
            if matching or not question.only_matching or question.pattern is None:
                self.numbers.append(number)
        self._seen = max(begin, view.end - view.unfinished)
        return same

    def match_after(self, number: int, *, backwards: bool = False) -> int | None:
        """The next match behind `number`, or before it; goes on at the other end."""
        return next_of(self.matches, number, backwards=backwards)


def next_of(numbers: list[int], number: int, *, backwards: bool = False) -> int | None:
    """The next of rising `numbers` behind `number`, or before it; goes on at the other end; None of none."""
    if not numbers:
        return None
    if backwards:
        return numbers[bisect_left(numbers, number) - 1]
    return numbers[bisect_left(numbers, number + 1) % len(numbers)]
