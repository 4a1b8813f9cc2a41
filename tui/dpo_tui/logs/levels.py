"""How grave a line of a raw log is, by what Python, torch and the usual loggers write."""

from __future__ import annotations

import re
from enum import IntEnum

SEARCHED_CHARACTERS = 200
"""Loggers write the level near the start; what stands further on is somebody's text."""

_WORDS = re.compile(
    r"\b(?:(DEBUG|TRACE)|(INFO|NOTICE)|(WARNING|WARN|\w*Warning(?=: ))|(ERROR|CRITICAL|FATAL|SEVERE))\b"
)
_GLOG = re.compile(r"(?:^|\[)([IWEF])\d{4} \d\d:\d\d:")
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?::|$)")
_RANK = re.compile(r"^\[[^\]]{1,24}\]:\s?")
"""What torchrun puts in front of the lines of a rank."""
TRACEBACK = "Traceback (most recent call last)"


class Level(IntEnum):
    """Rising; `NONE` is a line that does not say."""

    NONE = 0
    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


_OF_GLOG = {"I": Level.INFO, "W": Level.WARNING, "E": Level.ERROR, "F": Level.ERROR}


class Levels:
    """Judges the lines of one file in their order: a traceback goes on until a line that is not indented."""

    def __init__(self) -> None:
        self._in_traceback = False

    def of(self, line: str) -> Level:
        """The level of the next line."""
        text = _RANK.sub("", line[:SEARCHED_CHARACTERS])
        if TRACEBACK in text:
            self._in_traceback = True
            return Level.ERROR
        if self._in_traceback:
            self._in_traceback = not text or text[0] in " |+"
            return Level.ERROR
        return _level(text)


def _level(text: str) -> Level:
    if found := _WORDS.search(text):
        return Level(found.lastindex or 0)
    if found := _GLOG.search(text):
        return _OF_GLOG[found[1]]
    return Level.ERROR if _RAISED.match(text) else Level.NONE
