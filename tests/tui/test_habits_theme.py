"""Colours: every theme has all of them, text can be read, and lines are told apart with any colour vision."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.tui.conftest import RunBuilder, drawn
from textual.theme import Theme

from dpo_telemetry.reader.source import DirectorySource
from dpo_tui.app import MonitorApp
from dpo_tui.theme import DECK, THEMES

Floats = NDArray[np.float64]

MACHADO = {
    "everybody": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
"""Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
D65 = np.array([0.95047, 1.0, 1.08883])
FOR_ANY_EYES = ("okabe-ito", "blue-orange")
TEXT = ("muted", "chart-label", "footer-key-foreground")
LINES = ("chart-train", "chart-eval", "chart-chosen", "chart-rejected", "chart-nonfinite")
SHARE_A_CHART = (("chart-train", "chart-eval"), ("chart-chosen", "chart-rejected"))
APART = 20.0
"""CIE76 difference; 2.3 is what can just be noticed side by side, and thin lines need far more."""


def linear(colour: str) -> Floats:
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    return float(linear(colour) @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2, from 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb: Floats) -> Floats:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / D65
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one: str, other: str, eyes: str) -> float:
    matrix = MACHADO[eyes]
    return float(np.linalg.norm(lab(matrix @ linear(one)) - lab(matrix @ linear(other))))


def grounds(theme: Theme) -> list[str]:
    found = [theme.background, theme.surface, theme.panel]
    assert None not in found
    return [ground for ground in found if ground is not None]


def test_the_formulas_are_those_of_the_standards() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert difference("#ffffff", "#000000", "everybody") == pytest.approx(100, abs=0.1)
    assert (
        difference("#ff0000", "#8c7000", "deuteranopia") < difference("#ff0000", "#8c7000", "everybody") / 2
    )


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_every_theme_defines_every_variable(theme: Theme) -> None:
    assert theme.variables.keys() == DECK.variables.keys()
    for colour in (*theme.variables.values(), theme.error, theme.warning, theme.success, theme.foreground):
        assert colour is not None
        assert len(colour) == 7
        int(colour[1:], 16)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_text_can_be_read_on_every_ground(theme: Theme) -> None:
    """4.5 is WCAG's AA for text, 3 for what is drawn."""
    text = [theme.variables[name] for name in TEXT]
    text += [
        theme.primary,
        theme.secondary or "",
        theme.error or "",
        theme.warning or "",
        theme.success or "",
    ]
    for ground in grounds(theme):
        assert contrast(theme.foreground or "", ground) >= 7
        for colour in text:
            assert contrast(colour, ground) >= 4.5, (colour, ground)
        for name, colour in theme.variables.items():
            if name.startswith(("chart-", "part-")) and name != "chart-grid":
                assert contrast(colour, ground) >= 3, (name, ground)


@pytest.mark.parametrize("eyes", MACHADO)
@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_lines_of_one_chart_are_told_apart(theme: Theme, eyes: str) -> None:
    for one, other in SHARE_A_CHART:
        assert difference(theme.variables[one], theme.variables[other], eyes) >= APART, (one, other)


@pytest.mark.parametrize("eyes", MACHADO)
@pytest.mark.parametrize("name", FOR_ANY_EYES)
def test_all_lines_and_severities_of_two_themes_are_told_apart_with_any_eyes(name: str, eyes: str) -> None:
    theme = next(theme for theme in THEMES if theme.name == name)
    for one, other in itertools.combinations(LINES, 2):
        assert difference(theme.variables[one], theme.variables[other], eyes) >= APART, (one, other)
    severities = [colour or "" for colour in (theme.error, theme.warning, theme.success)]
    for first, second in itertools.combinations(severities, 2):
        assert difference(first, second, eyes) >= APART, (first, second)


async def test_another_theme_repaints_the_charts_and_is_kept(live_run: RunBuilder, tmp_path: Path) -> None:
    file = tmp_path / "config" / "tui.toml"

    def app() -> MonitorApp:
        return MonitorApp(
            DirectorySource(live_run.run), "run", clock=lambda: live_run.now_s + 2, settings_file=file
        )

    first = app()
    async with first.run_test(size=(120, 40)) as pilot:
        await drawn(first, pilot)
        assert first.theme == "deck"
        before = first.export_screenshot()
        assert (DECK.variables["chart-train"] in before, "#80cefa" in before) == (True, False)
        first.theme = "okabe-ito"
        await pilot.pause()
        await pilot.pause()
        after = first.export_screenshot()
        assert (DECK.variables["chart-train"] in after, "#80cefa" in after) == (False, True)
    assert 'theme = "okabe-ito"' in file.read_text()
    second = app()
    async with second.run_test(size=(120, 40)):
        assert second.theme == "okabe-ito"
