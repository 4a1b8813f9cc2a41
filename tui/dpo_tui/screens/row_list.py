"""A list of coloured lines with a mark on one of them."""

from __future__ import annotations

from textual.widgets import OptionList


class RowList(OptionList):
    """One line a row, cut at the edge; the mark leaves the colours of its row readable."""

    DEFAULT_CSS = """
    RowList {
        height: 1fr; max-height: 100%; padding: 0 1; scrollbar-size: 1 1; background: $background;
        text-wrap: nowrap; text-overflow: ellipsis;
        &, &:focus { border: none; background-tint: $background 0%; }
        & > .option-list--option-highlighted, &:focus > .option-list--option-highlighted {
            background: $panel; color: $foreground; text-style: bold;
        }
    }
    """
