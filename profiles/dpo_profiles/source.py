"""Where a profile is found, and how its bytes become a table."""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.text import nearest, one_line, show

SHIPPED_FOLDER = Path(str(resources.files("dpo_profiles"))) / "shipped"
FILE_LIMIT_BYTES = 1 << 20
"""No profile or engine file that people write comes near this; a wrong path may."""

_BARE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_POSITION = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)\s*$")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A profile file that exists."""

    label: str
    """How messages name it."""
    path: Path


def shipped_names() -> list[str]:
    """Names of the profiles that come with the package, sorted."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.toml"))


def find_source(name_or_path: str, folder: Path) -> Source:
    """The file that a name or a path means.

    A bare name is a shipped profile first and a file second; a path is relative to `folder`.

    Raises:
        ProfileError: there is neither, with the nearest shipped name.
    """
    if name_or_path in shipped_names():
        return Source(label=f"{name_or_path} (shipped)", path=SHIPPED_FOLDER / f"{name_or_path}.toml")
    if not name_or_path or not name_or_path.isprintable():
        raise ProfileError(f"{show(name_or_path)}: no name or path of a profile; {_offer('')}")
    path = absolute(name_or_path, folder)
    if os.path.lexists(path):
        return Source(label=name_or_path, path=path)
    if _BARE_NAME.fullmatch(name_or_path) and not name_or_path.endswith(".toml"):
        beside = absolute(f"{name_or_path}.toml", folder)
        mend = f"did you mean {name_or_path}.toml?" if os.path.isfile(beside) else _offer(name_or_path)
        raise ProfileError(f"{name_or_path}: no shipped profile has this name; {mend}")
    raise ProfileError(f"{name_or_path}: no such file; {_offer(Path(name_or_path).stem)}")


def absolute(text: str, folder: Path) -> Path:
    """A path written in a file of `folder`, with `~` and `..` resolved but symbolic links kept."""
    return Path(os.path.abspath(folder / os.path.expanduser(text)))


def read_text(path: Path, label: str) -> str:
    """The text of a profile or engine file.

    Raises:
        ProfileError: missing, a folder, no plain file, unreadable, over 1 MiB, or not UTF-8.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ProfileError(f"{label}: is a folder; name the file in it")
        if not stat.S_ISREG(mode):
            raise ProfileError(f"{label}: is no plain file; copy its text into one")
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{label}: {_refusal(error)}") from None
    if len(data) > FILE_LIMIT_BYTES:
        raise ProfileError(f"{label}: is larger than {FILE_LIMIT_BYTES >> 20} MiB; name the right file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"{label}: line {line}: is not UTF-8 text; save the file as UTF-8") from None


def parse_toml(text: str, label: str) -> dict[str, Any]:
    """The table that TOML text holds.

    Raises:
        ProfileError: it is not TOML, with line and column.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ProfileError(f"{label}: is nested too deeply; profiles have tables of plain values") from None
    except ValueError as error:
        message = one_line(str(error))
        position = _POSITION.search(message)
        if position is None:
            raise ProfileError(f"{label}: is not TOML: {message}; mend that value") from None
        line, column = position.groups() if position[1] else _end_of(text)
        what = message[: position.start()]
        raise ProfileError(
            f"{label}: line {line}, column {column}: is not TOML: {what}; mend that line"
        ) from None


def _end_of(text: str) -> tuple[str, str]:
    lines = text.split("\n")
    return str(len(lines)), str(len(lines[-1]) + 1)


def _refusal(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "no such file; correct the path"
    reason = error.strerror or type(error).__name__
    return f"cannot be read ({reason}); make it readable or name another"


def _offer(word: str) -> str:
    names = shipped_names()
    near = nearest(word, names)
    listed = f"shipped profiles are {', '.join(names)}"
    return f"did you mean {near}? ({listed})" if near else listed
