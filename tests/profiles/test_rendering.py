from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import convert, inspect

from dpo_profiles.fields import all_fields, sections
from dpo_profiles.load import load_profile, parse_resolved
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Profile

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value that the schema allows for a type."""
    match kind:
        case inspect.Metadata():
            return values(kind.type)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(kind.ge or 0, 2**63 - 1 if kind.le is None else kind.le)
        case inspect.FloatType():
            low = kind.ge if kind.ge is not None else kind.gt
            return st.floats(
                low,
                kind.lt,
                exclude_min=kind.gt is not None,
                exclude_max=kind.lt is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.VarTupleType():
            return st.lists(TEXT, min_size=kind.min_length or 0, max_size=4)
        case inspect.StrType(pattern=str()):
            return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
        case inspect.StrType():
            return TEXT.filter(lambda text: len(text) >= (kind.min_length or 0))
        case inspect.StructType():
            return st.fixed_dictionaries({field.name: values(field.type) for field in kind.fields})
    raise TypeError(kind)


profiles = values(inspect.type_info(Profile)).map(lambda table: convert(table, Profile))


@given(profiles, st.booleans())
@settings(deadline=None)
def test_any_valid_profile_is_read_back_identically(profile: Profile, comments: bool) -> None:
    assert parse_resolved(to_toml(profile, comments=comments), "profile.toml") == profile


def test_every_default_is_written_out_once() -> None:
    table = tomllib.loads(to_toml(load_profile("demo"), comments=False))
    written = {f"{s}.{name}" for s in sections() for name in table[s]} | (table.keys() - set(sections()))
    assert written == {field.path for field in all_fields()}


def test_comments_give_meaning_and_unit_beside_every_value() -> None:
    lines = to_toml(load_profile("zero3"), comments=True).splitlines()
    for field in all_fields():
        assert any(
            line.startswith(f"{field.name} = ") and line.endswith(f"  # {field.description} ({field.unit})")
            for line in lines
        ), field.path
