"""What the user chose is kept; a file that is wrong costs nothing but a line on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tui.conftest import RunBuilder, drawn, wait_until

from dpo_telemetry.reader.source import DirectorySource
from dpo_tui.app import MonitorApp
from dpo_tui.settings import MAX_FILE_BYTES, Settings, load, save


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "tui.toml"
    kept = Settings(theme="okabe-ito", smoothing=0.9, x_axis="tokens", notifications="off")
    assert save(file, kept) == ""
    assert load(file) == (kept, "")
    assert [path.name for path in file.parent.iterdir()] == ["tui.toml"]


def test_without_a_file_there_are_defaults_and_nothing_is_written(tmp_path: Path) -> None:
    assert load(tmp_path / "tui.toml") == (Settings(), "")
    assert load(None) == (Settings(), "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        'theme = ["deck"]',
        "smoothing = 1.0",
        "smoothing = nan",
        'x_axis = "yards"',
        "log_scale = 1",
        'signs = ""',
    ],
)
def test_a_field_that_does_not_hold_has_its_default_and_the_others_stay(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tui.toml"
    file.write_text(f'{text}\nnotifications = "critical"\nfrom_the_future = 1\n')
    found, problem = load(file)
    assert found == Settings(notifications="critical")
    assert text.split()[0] in problem
    assert str(file) in problem


@pytest.mark.parametrize("data", [b"theme = ", b"\xff\xfe", b"x = 1\n" * MAX_FILE_BYTES, b"[" * 60_000])
def test_a_broken_file_is_set_aside(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "tui.toml"
    file.write_bytes(data)
    found, problem = load(file)
    assert found == Settings()
    assert "tui.toml.broken" in problem
    assert (tmp_path / "tui.toml.broken").read_bytes() == data
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "settings cannot be kept" in save(tmp_path / "file" / "tui.toml", Settings())
    assert "cannot be read" in load(tmp_path / "file" / "tui.toml")[1]


async def test_a_broken_file_is_said_in_a_toast(live_run: RunBuilder, tmp_path: Path) -> None:
    file = tmp_path / "tui.toml"
    file.write_text("[bold]not [/] toml")
    app = MonitorApp(DirectorySource(live_run.run), "run", clock=lambda: live_run.now_s, settings_file=file)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(app, pilot)
        await wait_until(lambda: len(app._notifications) == 1, pilot)
        (toast,) = app._notifications
        assert "tui.toml.broken" in toast.message


async def test_a_theme_that_is_not_known_is_the_default(live_run: RunBuilder, tmp_path: Path) -> None:
    file = tmp_path / "tui.toml"
    file.write_text('theme = "nord"')
    app = MonitorApp(DirectorySource(live_run.run), "run", settings_file=file)
    assert app.theme == "deck"
