"""docs/diagnosis.md says what the rules are."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import msgspec
import pytest

from dpo_telemetry.health.causes import CAUSES, CONSEQUENCES
from dpo_telemetry.health.diagnosis import RULES
from dpo_telemetry.health.kind import ALL
from dpo_telemetry.health.thresholds import Thresholds

PAGE = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^###? |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ROWS = {
    row.split("`")[1]: [cell.strip() for cell in row.split("|")[2:-1]]
    for row in PAGE.splitlines()
    if row.startswith("| [`")
}
DEFAULTS = msgspec.to_builtins(Thresholds())


def source_of(code: str) -> str:
    return inspect.getsource(sys.modules[RULES[code].__module__])


def read_by(code: str) -> set[str]:
    """Thresholds that a rule's module reads."""
    read: list[str] = re.findall(r"\b_?(?:limits|thresholds)\.(\w+)", source_of(code))
    return {name for name in read if name in DEFAULTS}


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def test_the_page_has_a_row_and_a_section_for_every_code_and_no_other() -> None:
    assert list(ROWS) == list(RULES)
    assert list(SECTIONS) == list(RULES)


@pytest.mark.parametrize("code", RULES)
def test_the_row_of_a_code_says_what_its_rule_says(code: str) -> None:
    severities, needs, kinds, thresholds = ROWS[code]
    rule = RULES[code]
    assert set(severities.split(", ")) == set(rule.SEVERITIES)
    assert quoted(needs) == set(rule.NEEDS)
    assert (ALL if kinds == "all" else set(kinds.split(", "))) == rule.KINDS
    told = {name: float(value) for name, value in re.findall(r"`(\w+)` ([\d.e-]+)", thresholds)}
    assert told == {name: DEFAULTS[name] for name in read_by(code)}


@pytest.mark.parametrize("code", RULES)
def test_the_section_of_a_code_says_what_to_try_and_where_it_is_described(code: str) -> None:
    section = SECTIONS[code]
    assert "**Try:**" in section
    for reference in re.findall(r'"((?:arXiv |[\w-]+#)[\d.]+)"', source_of(code)):
        assert reference in section.split("**See:**")[1]


def test_every_threshold_is_read_by_a_rule() -> None:
    assert set().union(*(read_by(code) for code in RULES)) == DEFAULTS.keys()


def test_the_page_has_every_cause_with_what_it_explains() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    told = {code: (name, quoted(cell)) for code, name, cell in rows if code in CAUSES}
    assert told == {code: (CAUSES[code], set(CONSEQUENCES.get(code, ()))) for code in CAUSES}
