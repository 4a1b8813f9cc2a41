"""Which characters this terminal can show."""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dpo_tui.charts import glyphs


@dataclass(frozen=True, slots=True)
class Signs:
    """Characters of the panels; charts have their own set in `charts`."""

    charts: glyphs.Glyphs
    state: str
    good: str
    unknown: str
    critical: str
    warning: str
    info: str
    full: str
    empty: str
    block: str
    track: str
    mark: str
    """Where the plan stands on a memory bar."""
    tick: str
    """Where one phase of the plan stands, under a bar."""
    interval: str
    """Lower end, middle and upper end of what is planned as an interval."""
    edge: str
    """Where the card ends, on a bar that is longer than the card."""
    levels: str
    """From nearly nothing to full, one character a step."""
    chosen: str
    letters: bool
    """Bars are made of letters, because colours cannot be seen."""


UNICODE = Signs(
    glyphs.UNICODE, "●", "✔", "○", "✖", "▲", "•", "━", "─", "█", "░", "┃", "╵", "├─┤", "▐", "▁▂▃▄▅▆▇█", "▸",
    letters=False,
)  # fmt: skip
ASCII = Signs(
    glyphs.ASCII, "*", "+", "o", "X", "!", "i", "=", "-", "#", ".", "|", "'", "[-]", "]", "123456789", ">",
    letters=True,
)  # fmt: skip


def signs_for(environment: Mapping[str, str], encoding: str) -> Signs:
    """Unicode, unless the locale is not UTF-8 or the terminal is the Linux console, which has no Braille.

    Without colours (https://no-color.org) bars are made of letters.
    """
    utf8 = encoding.lower().replace("-", "").replace("_", "") == "utf8"
    signs = UNICODE if utf8 and environment.get("TERM") != "linux" else ASCII
    return replace(signs, letters=True) if environment.get("NO_COLOR") and not signs.letters else signs


def detect() -> Signs:
    """The set for the terminal that this process runs in."""
    return signs_for(os.environ, locale.getencoding())
