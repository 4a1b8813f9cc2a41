"""Which characters this terminal can show."""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping
from dataclasses import dataclass

from dpo_tui.charts import glyphs


@dataclass(frozen=True, slots=True)
class Signs:
    """Characters of the panels; charts have their own set in `charts`."""

    charts: glyphs.Glyphs
    state: str
    critical: str
    warning: str
    info: str
    full: str
    empty: str
    block: str
    track: str
    mark: str
    """Where the plan stands on a memory bar."""


UNICODE = Signs(glyphs.UNICODE, "●", "✖", "▲", "•", "━", "─", "█", "░", "┃")
ASCII = Signs(glyphs.ASCII, "*", "X", "!", "i", "=", "-", "#", ".", "|")


def signs_for(environment: Mapping[str, str], encoding: str) -> Signs:
    """Unicode, unless the locale is not UTF-8 or the terminal is the Linux console, which has no Braille."""
    utf8 = encoding.lower().replace("-", "").replace("_", "") == "utf8"
    return UNICODE if utf8 and environment.get("TERM") != "linux" else ASCII


def detect() -> Signs:
    """The set for the terminal that this process runs in."""
    return signs_for(os.environ, locale.getencoding())
