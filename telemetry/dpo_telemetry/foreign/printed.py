"""A row as Python prints it: a dict of numbers, in whatever way libraries spell them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

MAX_ROW_CHARS = 20_000
_OPENING = re.compile(r"\{\s{0,20}(?=['\"])")
_BRACE = re.compile(r"[{}]")
_INNER = re.compile(r"\{[^{}]*\}")
_NUMBER = r"[-+]?(?:\d[\d_]{0,400}(?:\.\d{0,400})?(?:[eE][-+]?\d{1,4})?|\.\d{1,400}(?:[eE][-+]?\d{1,4})?|nan|inf|NaN|Infinity)"
_ITEM = re.compile(
    r"""(['"])((?:[^'"\\{}]|\\.){1,200})\1\s{0,20}:\s{0,20}"""  # 'name':
    r"""(?:[A-Za-z_][\w.]{0,40}\(\[?)?"""  # np.float64( array( tensor(
    rf"""(['"]?)({_NUMBER})(?:/\d{{1,12}})?\3(?=\s{{0,20}}[,)\]}}]|\s{{0,20}}$)"""
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_DECODER = msgspec.json.Decoder(dict[str, Any])
_SPACE = re.compile(r"\s")


class Found:
    """The next dict in a text: its extent, and whether it is complete."""

    __slots__ = ("complete", "end", "start")

    def __init__(self, start: int, end: int, complete: bool) -> None:
        self.start, self.end, self.complete = start, end, complete


def find(text: str, at: int) -> Found | None:
    """The next dict from `at` on; an incomplete one ends where another begins, or with the text."""
    opening = _OPENING.search(text, at)
    if opening is None:
        return None
    start, depth = opening.start(), 0
    limit = start + MAX_ROW_CHARS
    for brace in _BRACE.finditer(text, start, limit):
        if brace[0] == "}":
            depth -= 1
            if depth == 0:
                return Found(start, brace.end(), True)
        elif depth and not text[max(start, brace.start() - 20) : brace.start()].rstrip().endswith(":"):
            return Found(start, brace.start(), False)
        else:
            depth += 1
    return Found(start, min(limit, len(text)), False)


def items(text: str) -> dict[str, Any]:
    """Names and numbers of a printed dict; what is no number is left out.

    Numbers may come as text. Inner dicts are passed over.
    """
    try:
        return _DECODER.decode(_as_json(text))
    except (msgspec.DecodeError, RecursionError):
        pass
    body = text[1:]
    while (outer := _INNER.sub("None", body)) != body:
        body = outer
    found = {}
    for _, name, _, value in _ITEM.findall(body):
        found[_unescaped(name) if "\\" in name else name] = value
    return found


def _as_json(text: str) -> str:
    """What most rows become when they are written as JSON; the others are no JSON then."""
    text = text.replace("'", '"')
    if "np.float" in text:
        text = (
            text.replace("np.float64(", "").replace("np.float32(", "").replace("),", ",").replace(")}", "}")
        )
    if "nan" in text:
        text = text.replace(": nan", ': "nan"')
    return text


def whole_names(row: dict[str, Any]) -> dict[str, Any]:
    """The items whose names have no blanks, as those of a row that something else was printed into."""
    return {name: value for name, value in row.items() if not _SPACE.search(name)}


def _unescaped(name: str) -> str:
    return _ESCAPE.sub(
        lambda found: chr(int(found[1] or found[2], 16)) if found[3] is None else found[3], name
    )
