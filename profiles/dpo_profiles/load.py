"""Profiles by name or path: `load_profile` for a run to start, `parse_resolved` for one that was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpo_profiles.errors import ProfileError
from dpo_profiles.merge import merged_profile
from dpo_profiles.rules import refuse_contradictions
from dpo_profiles.schema import Profile
from dpo_profiles.source import find_source, parse_toml, shipped_names
from dpo_profiles.unknown import refuse_unknown
from dpo_profiles.validate import to_profile

__all__ = ["load_profile", "parse_resolved", "shipped_names"]


def load_profile(name_or_path: str, overrides: Sequence[str] = ()) -> Profile:
    """A shipped profile or a TOML file, with everything it extends and every `section.key=value`.

    Engine files come back as absolute paths; they are relative to the file that names them.

    Raises:
        ProfileError: one line naming file, field and mend.
    """
    source = find_source(name_or_path, Path.cwd())
    merged = merged_profile(source, overrides)
    profile = to_profile(merged.table, lambda path: merged.origins.get(path, source.label))
    refuse_contradictions(profile, source.label)
    return profile


def parse_resolved(text: str, source: str) -> Profile:
    """An attempt's own profile.toml, which `to_toml` wrote, back into the same Profile.

    It was checked when the run started, so neither engine files nor rules are asked again:
    a run copied to another machine still opens.

    Raises:
        ProfileError: the text is no profile; `source` is how the line names it.
    """
    table = parse_toml(text, source)
    if "extends" in table:
        raise ProfileError(f"{source}: extends: a resolved profile stands alone; load the family's own file")
    refuse_unknown(table, source)
    return to_profile(table, lambda _path: source)
