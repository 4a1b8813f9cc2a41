"""Text from logs, files and names is untrusted: it must never steer a terminal."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str, limit: int = 2000) -> str:
    """One line that any terminal and any encoder takes as plain text.

    Escape sequences are left out; control characters, bidirectional overrides, line separators
    and lone surrogates (bytes of a file name that are no text) become spaces.

    Longer texts are cut to `limit` characters and end in an ellipsis.
    """
    clean = _CONTROLS.sub(" ", _ESCAPES.sub("", text)).expandtabs(4)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
