"""What the user chose, kept between sessions in a TOML file of the user's configuration directory."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from dpo_telemetry.cli import APP_NAME
from dpo_telemetry.rundir.create import write_atomically

MAX_FILE_BYTES = 64 * 1024
"""A settings file is a few hundred bytes; a larger one is something else."""

SignsChoice = Literal["auto", "unicode", "ascii"]
XAxis = Literal["step", "time", "epoch", "tokens"]
Notifications = Literal["off", "critical", "warning"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every field has a default; keys that this version does not know are left out."""

    theme: Annotated[str, msgspec.Meta(max_length=64)] = "deck"
    signs: SignsChoice = "auto"
    """Characters that the screen is drawn with; auto looks at the terminal and the locale."""
    smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Weight of the past in the exponential moving average of the charts; 0 is none."""
    x_axis: XAxis = "step"
    log_scale: bool = False
    notifications: Notifications = "warning"
    """The mildest alert that the terminal is told of."""


def settings_file() -> Path:
    """Where the settings of this user are."""
    import platformdirs

    return Path(platformdirs.user_config_dir(APP_NAME)) / "tui.toml"


def load(file: Path | None) -> tuple[Settings, str]:
    """Settings and, where the file could not be used, one line that says so.

    A field that does not hold has its default, and the others stay. A file that is no TOML is
    renamed aside, because the next change would overwrite it. None is the defaults.
    """
    if file is None:
        return Settings(), ""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return Settings(), ""
    except OSError as error:
        return Settings(), f"{file}: cannot be read ({error.strerror}); defaults are used"
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        return Settings(), _set_aside(file, error)
    return _checked(file, found)


def save(file: Path | None, settings: Settings) -> str:
    """Replace the file in one step; returns one line where that did not work, else nothing."""
    if file is None:
        return ""
    import tomli_w

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, tomli_w.dumps(msgspec.to_builtins(settings)).encode())
    except OSError as error:
        return f"{file}: settings cannot be kept ({error.strerror})"
    return ""


def _checked(file: Path, found: dict[str, Any]) -> tuple[Settings, str]:
    """Field by field, so that one wrong value costs no other."""
    good: dict[str, Any] = {}
    wrong = []
    for field in msgspec.structs.fields(Settings):
        if field.name not in found:
            continue
        try:
            good[field.name] = msgspec.convert(found[field.name], field.type, strict=True)
        except msgspec.ValidationError as error:
            wrong.append(f"{field.name}: {error}")
    return Settings(**good), f"{file}: {'; '.join(wrong)}; defaults are used there" if wrong else ""


def _set_aside(file: Path, error: Exception) -> str:
    aside = file.with_name(f"{file.name}.broken")
    try:
        file.replace(aside)
    except OSError:
        return f"{file}: cannot be understood ({error}); defaults are used"
    return f"{file}: cannot be understood ({error}); it is {aside.name} now, and defaults are used"
