"""Whether a log is one JSON document, JSON lines, or something else that begins with a brace."""

from __future__ import annotations

import json
import re
from typing import Literal

from dpo_telemetry.foreign import json_text
from dpo_telemetry.foreign.json_rows import STATE_KEY, is_row
from dpo_telemetry.foreign.source import Source

Shape = Literal["document", "lines"]

_LIST = re.compile(rb"\[\s*(?:\{|\]|$)")
_OBJECT = re.compile(rb'\{\s*(?:["}]|$)')
_NEAR_END_CHARS = 32
"""A decoder that fails so near the end of what it sees lacks the rest."""


def of(source: Source) -> Shape | None:
    """The shape that the first bytes show; None for what is no JSON."""
    head = source.head.lstrip()
    if _LIST.match(head):
        return "document"
    if not _OBJECT.match(head):
        return None
    if STATE_KEY in head:
        return "document"
    first, newline, rest = head.partition(b"\n")
    try:
        row = json_text.decode(first) if newline or source.head_is_all else None
    except json_text.NOT_JSON:
        row = None
    if isinstance(row, dict):
        metrics = row.get("metrics")
        row_like = is_row(row) or (isinstance(metrics, dict) and is_row(metrics))
        return "lines" if row_like or rest.lstrip().startswith(b"{") else "document"
    return "document" if _is_document(head.decode("utf-8", "replace")) else None


def _is_document(text: str) -> bool:
    """Whether a text is the beginning of one JSON document, or all of it."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) - _NEAR_END_CHARS or error.msg.startswith("Unterminated string")
    except RecursionError:
        return True
    return not text[end:].strip()
