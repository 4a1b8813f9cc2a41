"""With which profile and in which surroundings each attempt ran, and what differs from what."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from dpo_telemetry import events
from dpo_telemetry.figures import clock_text, size
from dpo_telemetry.reader.attempt import AttemptView
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.text import printable
from dpo_tui.views.timeline import rank_list

Table = Mapping[str, Any]
ENGINE_FILES = ("engine.deepspeed_file", "engine.accelerate_file")
"""Absolute paths that differ between machines although the file is the same."""


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One value; all texts are printable."""

    path: str
    """`section.name` of the profile, or what the surroundings call it."""
    value: str
    base: str | None = None
    """What the base says, where that differs."""
    before: str | None = None
    """What the attempt before had, where that differs."""
    meaning: str = ""
    unit: str = ""

    @property
    def differs(self) -> bool:
        """Whether the row says anything that base or attempt before do not."""
        return self.base is not None or self.before is not None


@dataclass(frozen=True, slots=True)
class ConfigSection:
    """Rows under one heading."""

    title: str
    rows: tuple[ConfigRow, ...]


@dataclass(frozen=True, slots=True)
class AttemptConfig:
    """One attempt."""

    number: int
    sections: tuple[ConfigSection, ...]
    base: str
    """What the profile is compared with."""
    command: str
    """Repeats the run; empty where the profile is not known."""
    has_profile: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """All attempts, the oldest first."""

    attempts: tuple[AttemptConfig, ...] = ()


def config_key(model: RunModel) -> tuple[object, ...]:
    """What a configuration is made of: it need not be made again while this stays the same."""
    profiles = tuple((number, id(attempt.profile)) for number, attempt in model.attempts.items())
    starts = sum(process.start is not None for process in model.processes.values())
    return (profiles, starts, model.run, len(model.gpus), len(model.hosts))


def take_config(model: RunModel, place: str | None) -> Config:
    """What is known now.

    Args:
        model: the run.
        place: path of its directory, where it can be reached from here.
    """
    found: list[AttemptConfig] = []
    before: AttemptView | None = None
    for _, attempt in sorted(model.attempts.items()):
        base_name, base = _base_of(attempt.profile)
        sections = [
            *_profile_sections(attempt.profile, base, before.profile if before else {}),
            *_surroundings(model, attempt, before),
        ]
        found.append(
            AttemptConfig(
                number=attempt.number,
                sections=tuple(section for section in sections if section.rows),
                base=base_name,
                command=_command(model, attempt, base_name, base, place),
                has_profile=bool(attempt.profile),
            )
        )
        before = attempt
    return Config(tuple(found))


def flat(table: Table) -> dict[str, Any]:
    """Values by `section.name`."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            values.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            values[str(key)] = value
    return values


def shown(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return printable(value, 500) if value else '""'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return printable(str(value), 500)


def same(path: str, value: Any, other: Any) -> bool:
    """Whether two values mean the same; the numbers 1 and 1.0 do."""
    if path in ENGINE_FILES and isinstance(value, str) and isinstance(other, str):
        return PurePath(value).name == PurePath(other).name
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return list(value) == list(other)
    return bool(value == other)


def _base_of(profile: Table) -> tuple[str, dict[str, Any]]:
    """Name and values of what a profile is compared with: the shipped one of its name, else the defaults."""
    # Nobody who does not open this screen waits for the schema.
    import msgspec

    from dpo_profiles.errors import ProfileError
    from dpo_profiles.fields import all_fields
    from dpo_profiles.load import load_profile, shipped_names

    name = profile.get("name")
    if isinstance(name, str) and name in shipped_names():
        try:
            return f"the shipped profile {name}", flat(msgspec.to_builtins(load_profile(name)))
        except ProfileError:
            pass
    defaults = {field.path: field.default for field in all_fields() if not field.required}
    return "the schema's defaults", defaults


def _profile_sections(profile: Table, base: Table, before: Table) -> Iterator[ConfigSection]:
    from dpo_profiles.fields import find_field

    earlier = flat(before)
    grouped: dict[str, list[ConfigRow]] = defaultdict(list)
    for path, value in flat(profile).items():
        field = find_field(path)
        base_value, old = base.get(path, value), earlier.get(path, value)
        title = path.partition(".")[0] if "." in path else "profile"
        grouped[printable(title, 40)].append(
            ConfigRow(
                path=printable(path, 80),
                value=shown(value),
                base=None if same(path, value, base_value) else shown(base_value),
                before=None if same(path, value, old) else shown(old),
                meaning=field.description if field else "",
                unit=field.unit if field else "",
            )
        )
    for title, rows in grouped.items():
        yield ConfigSection(title, tuple(rows))


def _surroundings(
    model: RunModel, attempt: AttemptView, before: AttemptView | None
) -> Iterator[ConfigSection]:
    run = model.run
    if run is not None:
        created = clock_text(run.created, "%Y-%m-%d %H:%M:%S") or "n/a"
        rows = {"name": run.name, "id": run.id, "created": created, "on host": run.host}
        yield ConfigSection("run", _rows(rows, {}))
    yield ConfigSection("job", _rows(_job(attempt), _job(before)))
    versions, others = _versions(attempt), _versions(before)
    yield ConfigSection("versions", _rows(versions, others))
    yield ConfigSection("processes", _rows(_processes(model, attempt.number), {}))
    yield ConfigSection("machines", _rows(_machines(model), {}))


def _rows(values: Mapping[str, str], before: Mapping[str, str]) -> tuple[ConfigRow, ...]:
    return tuple(
        ConfigRow(
            path=printable(name, 80),
            value=printable(value, 500),
            before=printable(before[name], 500) if before.get(name, value) != value else None,
        )
        for name, value in values.items()
    )


def _job(attempt: AttemptView | None) -> dict[str, str]:
    start = attempt.start if attempt is not None else None
    if start is None:
        return {}
    values = {"world size": start.world_size, "device": start.device, "host of rank 0": start.host}
    values |= {"resumed from step": start.resumed_from_step, "steps to make": start.max_steps}
    values |= {"boot id": start.boot_id}
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def _versions(attempt: AttemptView | None) -> dict[str, str]:
    start = attempt.start if attempt is not None else None
    return dict(start.versions) if start is not None else {}


def _processes(model: RunModel, attempt: int) -> dict[str, str]:
    """Ranks by host and device, those alike in one row; agents and keepers."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    others: dict[str, str] = {}
    starts = [p.start for p in model.processes.values() if p.attempt == attempt and p.start is not None]
    for start in starts:
        if start.role == "rank":
            alike[start.host, start.device].append(start.rank or 0)
        else:
            others[f"{start.role} on {start.host}"] = f"pid {start.pid}, boot {start.boot_id}"
    rows = {
        f"{'rank' if len(ranks) == 1 else 'ranks'} {rank_list(sorted(ranks))}": f"{host}  {device}".strip()
        for (host, device), ranks in alike.items()
    }
    return rows | others | _other_versions(starts)


def _other_versions(starts: list[events.Start]) -> dict[str, str]:
    """Packages that not all ranks have in the same version."""
    found: dict[str, set[str]] = defaultdict(set)
    for start in starts:
        for package, version in start.versions.items():
            found[package].add(version)
    return {
        f"{package} differs": ", ".join(sorted(versions))
        for package, versions in found.items()
        if len(versions) > 1
    }


def _machines(model: RunModel) -> dict[str, str]:
    rows = {host: f"{size(seen.memory_total_bytes)} memory" for host, seen in sorted(model.hosts.items())}
    for (host, index), card in sorted(model.gpus.items()):
        rows[f"{host} GPU {index}"] = f"{card.name}  {size(card.memory_total_bytes)}"
    return rows


def _command(
    model: RunModel, attempt: AttemptView, base_name: str, base: Mapping[str, Any], place: str | None
) -> str:
    """What starts the same job again: from the shipped profile with what differs, else from the resolved file."""
    from dpo_profiles.fields import find_field

    if not attempt.profile:
        return ""
    if not base_name.startswith("the shipped"):
        where = place or (model.run.name if model.run is not None else "RUN")
        file = f"{where}/attempts/{attempt.number:03d}/profile.toml"
        return f"dpo-daemon start --profile {shlex.quote(printable(file))}"
    parts = ["dpo-daemon", "start", "--profile", str(attempt.profile["name"])]
    for path, value in flat(attempt.profile).items():
        # What this version does not know, it would refuse.
        if find_field(path) is not None and not same(path, value, base.get(path, value)):
            parts += ["--set", f"{path}={_toml(value)}"]
    return " ".join(shlex.quote(printable(part)) for part in parts)


def _toml(value: Any) -> str:
    """A value as `--set` reads it; text in quotes only where it would be read as something else."""
    if isinstance(value, str):
        plain = value.replace("-", "").replace("_", "").replace("/", "").replace(".", "").isalpha()
        return value if plain and value not in ("true", "false", "inf", "nan") else _quoted(value)
    if isinstance(value, list | tuple):
        return (
            "[" + ", ".join(_quoted(item) if isinstance(item, str) else _toml(item) for item in value) + "]"
        )
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(text: str) -> str:
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
