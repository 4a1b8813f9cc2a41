"""The thresholds of the rules and those of a profile are the same, and a profile's are taken."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dpo_profiles.health import Health
from dpo_profiles.load import load_profile
from dpo_profiles.render import to_toml
from dpo_telemetry.health.rule import Context
from dpo_telemetry.health.thresholds import Thresholds


def told(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """By field: type with range, unit, meaning, default."""
    return {
        field.name: (msgspec.inspect.type_info(field.type), field.default)
        for field in msgspec.structs.fields(kind)
    }


def test_profile_and_rules_have_the_same_thresholds() -> None:
    assert told(Health) == told(Thresholds)
    assert msgspec.to_builtins(Health()) == msgspec.to_builtins(Thresholds())


def test_a_context_takes_the_thresholds_of_its_profile() -> None:
    profile = msgspec.toml.decode(to_toml(load_profile("demo"), comments=False))
    assert Context.of_profile(profile).thresholds == Thresholds()
    profile["health"] |= {"window_rows": 99, "small_margin": 0.5}
    assert Context.of_profile(profile).thresholds == Thresholds(window_rows=99, small_margin=0.5)
    assert Context.of_profile({}).thresholds == Thresholds()


@pytest.mark.parametrize(
    "table",
    [
        {"window_rows": 0},
        {"window_rows": "many"},
        {"nonsense": 1},
        {"small_margin": float("nan")},
        {"small_margin": []},
    ],
)
def test_what_a_damaged_profile_says_falls_back_to_the_default(table: dict[str, Any]) -> None:
    assert Thresholds.of_table(table | {"frozen_rows": 7}) == Thresholds(frozen_rows=7)
