"""Text from logs, files and names is untrusted: it must never steer a terminal."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str, limit: int = 2000) -> str:
    """One line without escape sequences, control or bidirectional override characters.

    Longer texts are cut to `limit` characters and end in an ellipsis.
    """
    clean = _CONTROLS.sub(" ", _ESCAPES.sub("", text)).expandtabs(4)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
