"""Colours of the monitor: a dark and a light theme, and two for anyone's colour vision.

`okabe-ito` takes the palette of Okabe and Ito ("Color Universal Design", 2008), lightened for a dark
background; `blue-orange` uses nothing but the two hues that protanopia and deuteranopia leave apart,
on black. What a colour says is always said by a sign or a word too.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.theme import Theme


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Every colour that a theme defines, as #rrggbb."""

    background: str
    surface: str
    panel: str
    foreground: str
    muted: str
    grid: str
    """Guide lines and empty tracks: seen, but never read."""
    primary: str
    secondary: str
    accent: str
    success: str
    warning: str
    error: str
    train: str
    eval: str
    chosen: str
    rejected: str
    nonfinite: str
    weights: str
    adapters: str
    gradients: str
    optimizer: str
    activations: str
    cache: str
    context: str


def theme_of(name: str, palette: Palette, *, dark: bool) -> Theme:
    """A theme for Textual with the variables that the style sheets and panels use."""
    return Theme(
        name=name,
        primary=palette.primary,
        secondary=palette.secondary,
        accent=palette.accent,
        warning=palette.warning,
        error=palette.error,
        success=palette.success,
        foreground=palette.foreground,
        background=palette.background,
        surface=palette.surface,
        panel=palette.panel,
        dark=dark,
        variables={
            "muted": palette.muted,
            "chart-label": palette.muted,
            "chart-grid": palette.grid,
            "chart-nonfinite": palette.nonfinite,
            "chart-train": palette.train,
            "chart-eval": palette.eval,
            "chart-chosen": palette.chosen,
            "chart-rejected": palette.rejected,
            "part-weights": palette.weights,
            "part-adapters": palette.adapters,
            "part-gradients": palette.gradients,
            "part-optimizer": palette.optimizer,
            "part-activations": palette.activations,
            "part-cache": palette.cache,
            "part-context": palette.context,
            "footer-background": palette.surface,
            "footer-key-foreground": palette.primary,
        },
    )


DARK = Palette(
    background="#11151c", surface="#161b24", panel="#1d2430", foreground="#d8dee9", muted="#8590a1",
    grid="#2a3240", primary="#6cb6eb", secondary="#8b9bb4", accent="#f0b429", success="#3cc3a0",
    warning="#f0b429", error="#ff6b6b", train="#6cb6eb", eval="#f0b429", chosen="#3cc3a0",
    rejected="#e8825a", nonfinite="#ff6b6b", weights="#4f8fc0", adapters="#3cc3a0", gradients="#c79bd2",
    optimizer="#e8825a", activations="#f0b429", cache="#8b9bb4", context="#66728a",
)  # fmt: skip
LIGHT = Palette(
    background="#fbfcfe", surface="#eef1f6", panel="#e2e7ef", foreground="#1b2330", muted="#566173",
    grid="#d3dae5", primary="#0b5fa5", secondary="#44546c", accent="#8a5a00", success="#0a6b52",
    warning="#8a5a00", error="#b3202a", train="#0074d6", eval="#a06a00", chosen="#078464",
    rejected="#d04a00", nonfinite="#b3202a", weights="#2f74ad", adapters="#0a8a68", gradients="#8a4fa0",
    optimizer="#c2500f", activations="#9a7000", cache="#66758c", context="#39465a",
)  # fmt: skip
OKABE_ITO = Palette(
    background="#101114", surface="#17191d", panel="#202329", foreground="#e8e8e8", muted="#a2a7b0",
    grid="#33373f", primary="#56b4e9", secondary="#aab2bf", accent="#f0e442", success="#56b4e9",
    warning="#f0e442", error="#ff7304", train="#80cefa", eval="#bf8400", chosen="#03ffbb",
    rejected="#c6689c", nonfinite="#f0e442", weights="#2f8fd0", adapters="#03ffbb", gradients="#cc79a7",
    optimizer="#e0701c", activations="#f0e442", cache="#a5a5a5", context="#6b7079",
)  # fmt: skip
BLUE_ORANGE = Palette(
    background="#000000", surface="#0a0a0a", panel="#141414", foreground="#ffffff", muted="#b4b4b4",
    grid="#3a3a3a", primary="#66b8ff", secondary="#c8c8c8", accent="#ffe08a", success="#66b8ff",
    warning="#ffe08a", error="#ff7a1a", train="#0d86ff", eval="#ffb81a", chosen="#80bfff",
    rejected="#ffba7d", nonfinite="#ffffff", weights="#2a6fd6", adapters="#66b8ff", gradients="#cfe6ff",
    optimizer="#d96a00", activations="#ffb81a", cache="#a0a0a0", context="#6b6b6b",
)  # fmt: skip

DECK = theme_of("deck", DARK, dark=True)
DECK_LIGHT = theme_of("deck-light", LIGHT, dark=False)
THEMES = (
    DECK,
    DECK_LIGHT,
    theme_of("okabe-ito", OKABE_ITO, dark=True),
    theme_of("blue-orange", BLUE_ORANGE, dark=True),
)
"""The first is the default; the last two are told apart with any colour vision."""
