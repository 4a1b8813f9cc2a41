"""Decoding of JSON as Python programs write it: quickly, with NaN and Infinity, never too deep."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec

NOT_JSON = (ValueError, RecursionError, msgspec.DecodeError)

_PLAIN_LINES = msgspec.json.Decoder(dict[str, float | str | None])
_PLAIN_LIST = msgspec.json.Decoder(list[dict[str, float | str | None]])
_LINES = msgspec.json.Decoder(dict[str, Any])
_LIST = msgspec.json.Decoder(list[Any])


def decode(data: bytes) -> Any:
    """A JSON text; NaN and infinities of Python's json may come as strings.

    Raises:
        ValueError, RecursionError, msgspec.DecodeError: it is none, or nested too deep.
    """
    try:
        return msgspec.json.decode(quoted(data))
    except msgspec.DecodeError:
        return json.loads(data)


def decode_lines(data: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Complete lines, each a JSON object; and whether they hold nothing but numbers, text and null.

    Raises:
        ValueError, RecursionError, msgspec.DecodeError: any line is none.
    """
    with contextlib.suppress(*NOT_JSON):
        return _PLAIN_LINES.decode_lines(data), True
    data = quoted(data)
    with contextlib.suppress(*NOT_JSON):
        return _PLAIN_LINES.decode_lines(data), True
    return _LINES.decode_lines(data), False


def decode_list(data: bytes) -> tuple[list[Any], bool]:
    """A JSON list; and whether it holds nothing but objects of numbers, text and null.

    Raises:
        ValueError, RecursionError, msgspec.DecodeError: it is none.
    """
    with contextlib.suppress(*NOT_JSON):
        return _PLAIN_LIST.decode(data), True
    data = quoted(data)
    with contextlib.suppress(*NOT_JSON):
        return _PLAIN_LIST.decode(data), True
    return _LIST.decode(data), False


def quoted(data: bytes) -> bytes:
    """NaN and infinities as text, where they stand as Python's json writes them."""
    for name in (b"NaN", b"Infinity", b"-Infinity"):
        for before in (b": ", b":"):
            if before + name in data:
                data = data.replace(before + name, before + b'"' + name + b'"')
    return data
