"""Colours of the monitor. The chart colours are told apart with any colour vision.

They follow the palette of Okabe and Ito ("Color Universal Design", 2008), lightened for a
dark background.
"""

from __future__ import annotations

from textual.theme import Theme

TRAIN, EVAL = "#6cb6eb", "#f0b429"
CHOSEN, REJECTED = "#3cc3a0", "#e8825a"

DECK = Theme(
    name="deck",
    primary="#6cb6eb",
    secondary="#8b9bb4",
    accent="#f0b429",
    warning="#f0b429",
    error="#ff6b6b",
    success="#3cc3a0",
    foreground="#d8dee9",
    background="#11151c",
    surface="#161b24",
    panel="#1d2430",
    dark=True,
    variables={
        "chart-label": "#7d8898",
        "chart-grid": "#2a3240",
        "chart-nonfinite": "#ff6b6b",
        "chart-train": TRAIN,
        "chart-eval": EVAL,
        "chart-chosen": CHOSEN,
        "chart-rejected": REJECTED,
        "muted": "#7d8898",
        "part-weights": "#4f8fc0",
        "part-adapters": "#3cc3a0",
        "part-gradients": "#c79bd2",
        "part-optimizer": "#e8825a",
        "part-activations": "#f0b429",
        "part-cache": "#8b9bb4",
        "part-context": "#5b6678",
        "footer-background": "#161b24",
        "footer-key-foreground": "#6cb6eb",
    },
)
