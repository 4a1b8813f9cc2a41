"""Whatever a widget drew, in ASCII: for terminals that show nothing else."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

SAME_SHAPE = {
    **dict.fromkeys("─━┄┅┈┉╌╍═▁▔⎯‾", "-"),
    **dict.fromkeys("│┃┆┇┊┋╎╏║▏▎▍▌▐▕", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰╔╗╚╝╠╣╦╩╬┏┓┗┛┣┫┳┻╋▖▗▘▙▚▛▜▝▞▟", "+"),
    **dict.fromkeys("█▇▆▅▉▊▋▓■", "#"),
    **dict.fromkeys("▂▃▄▀", "="),
    **dict.fromkeys("░▒", "."),
    **dict.fromkeys("●◉◆⬤•·∙", "*"),
    **dict.fromkeys("○◯◌◇", "o"),
    **dict.fromkeys("✖✗✘×", "x"),
    **dict.fromkeys("✔✓", "v"),
    **dict.fromkeys("▲△↑⭡", "^"),
    **dict.fromkeys("▼▽↓⭣", "v"),
    **dict.fromkeys("▶▸►→⭢❯", ">"),
    **dict.fromkeys("◀◂◄←⭠❮", "<"),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("“”″", '"'),
    **dict.fromkeys("–—−‐‑", "-"),
    "…": "~", "±": "+", "≥": ">", "≤": "<", "⏎": "<", "↲": "<", "⌫": "<",
}  # fmt: skip


@lru_cache(4096)
def ascii_of(text: str) -> str:
    """The nearest ASCII text of the same width in cells."""
    if text.isascii():
        return text
    width = cell_len(text)
    # Signs that are joined into one are narrower together than apart.
    return "".join(map(_ascii_sign, text))[:width].ljust(width)


def _ascii_sign(sign: str) -> str:
    if sign.isascii():
        return sign
    width = cell_len(sign)
    plain = SAME_SHAPE.get(sign) or unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return plain if len(plain) == width else "?" * width


class AsciiFilter(LineFilter):
    """Runs over every line before it goes to the terminal, scrollbars and borders included."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same cells in ASCII."""
        return [
            segment
            if segment.text.isascii()
            else Segment(ascii_of(segment.text), segment.style, segment.control)
            for segment in segments
        ]
