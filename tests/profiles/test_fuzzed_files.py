"""Whatever stands in a file, the answer is a profile or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_profiles.errors import ProfileError
from dpo_profiles.fields import all_fields, sections
from dpo_profiles.load import load_profile, parse_resolved
from dpo_profiles.render import to_toml

RESOLVED = to_toml(load_profile("fsdp"), comments=False).encode()
SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.\n \"'", max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from([field.name for field in all_fields()]) | st.text("abc_", max_size=5)
TABLES = st.dictionaries(
    st.sampled_from([*sections(), "name", "extends"]) | KEYS,
    VALUES | st.dictionaries(KEYS, VALUES, max_size=4),
    max_size=5,
)
with_a_shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refusal(name: str, *overrides: str) -> str:
    """The line that a profile is refused with; empty where it loads and is read back."""
    try:
        parse_resolved(to_toml(load_profile(name, overrides), comments=True), "profile.toml")
    except ProfileError as error:
        return error.message
    return ""


def assert_profile_or_one_line(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert "\n" not in refusal(str(path))


@given(st.integers(0, len(RESOLVED) - 1), st.binary(max_size=6), st.integers(0, 12))
@with_a_shared_folder
def test_a_damaged_file_gives_a_profile_or_one_line(tmp_path: Path, at: int, new: bytes, cut: int) -> None:
    assert_profile_or_one_line(tmp_path / "fuzzed.toml", RESOLVED[:at] + new + RESOLVED[at + cut :])


@given(TABLES)
@with_a_shared_folder
def test_any_table_gives_a_profile_or_one_line(tmp_path: Path, table: dict[str, Any]) -> None:
    assert_profile_or_one_line(tmp_path / "fuzzed.toml", tomli_w.dumps(table).encode())


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_override_gives_a_profile_or_one_line(text: str) -> None:
    for override in (text, f"loss.beta={text}", f"data.name={text}", f"adapter.target_modules={text}"):
        assert "\n" not in refusal("demo", override)
