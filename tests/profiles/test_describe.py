from __future__ import annotations

from pathlib import Path

from dpo_profiles.describe import describe, markdown
from dpo_profiles.fields import all_fields

DOCUMENT = Path(__file__).parents[2] / "docs" / "profiles.md"


def test_the_document_is_what_the_schema_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == markdown(), (
        "run: python -m dpo_profiles.describe > docs/profiles.md"
    )


def test_every_field_has_a_unit_and_a_meaning() -> None:
    for field in all_fields():
        assert field.unit, field.path
        assert field.description, field.path


def test_a_row_gives_section_field_type_unit_default_and_meaning() -> None:
    assert (
        "loss",
        "beta",
        "number above 0",
        "factor",
        "`0.1`",
        "Reward = beta x (policy log-prob - reference log-prob)",
    ) in describe()
