"""How values and names from a user's file are shown in a one-line message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN_CHARACTERS = 60


def show(value: object) -> str:
    """A value on one line, cut to a length that leaves the message readable."""
    text = repr(value) if isinstance(value, str | int | float | list | dict) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def show_key(key: str) -> str:
    """A key as it stands in the file, or quoted where it holds anything unusual."""
    plain = key.replace("_", "").replace("-", "").isalnum() and len(key) <= SHOWN_CHARACTERS
    return key if plain else show(key)


def one_line(text: str) -> str:
    """Any library's message, without its line breaks."""
    return " ".join(text.split())


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that a mistyped word most likely means, if any is close."""
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None


def kind_of(value: object) -> str:
    """What a TOML value is, in a user's words."""
    match value:
        case bool():
            return "true/false"
        case int():
            return "a whole number"
        case float():
            return "a number with a fraction"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
