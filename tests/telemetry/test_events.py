"""The schema: what is written is read back, by this version, an older and a newer one."""

from __future__ import annotations

import json
import math
import re
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dpo_telemetry import events
from dpo_telemetry.events import EVENT_TYPES, Event

DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"

VALUES: dict[Any, Any] = {
    str: "text", int: 3, float: 0.25, bool: True, dict[str, str]: {"torch": "2.13.0"},
    dict[str, int]: {"adapters": 5}, dict[str, float]: {"step": 6.8}, list[int]: [3, 5],
    dict[str, events.Number]: {"loss": "nan", "rewards/chosen": 0.5, "logps/chosen": "-inf"},
}  # fmt: skip


def example(kind: type[Event]) -> Event:
    """An event of one kind with every field set."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: example_of(hints[name]) for name in kind.__struct_fields__})


def without_none(hint: Any) -> Any:
    parts = typing.get_args(hint)
    return parts[0] if types.NoneType in parts else hint


def example_of(hint: Any) -> Any:
    hint = without_none(hint)
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)[0]
    return VALUES[hint]


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_kind_comes_back_as_it_was_written(kind: type[Event]) -> None:
    event = example(kind)
    line = events.encode(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert events.decode(line) == event


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_line_says_its_kind_its_version_and_both_clocks(kind: type[Event]) -> None:
    row = json.loads(events.encode(example(kind)))
    assert row["k"] == kind.__struct_config__.tag
    assert {"v", "t", "m"} <= row.keys()


def test_a_kind_of_a_later_version_is_unknown_and_no_damage() -> None:
    assert events.decode(b'{"k":"weather","v":2,"t":1.0,"m":1.0,"rain":true}') is None


def test_a_new_field_of_a_known_kind_is_passed_over() -> None:
    event = events.decode(b'{"k":"heartbeat","v":2,"t":1.0,"m":1.0,"step":4,"mood":"good"}')
    assert isinstance(event, events.Heartbeat)
    assert event.step == 4


def test_a_known_kind_in_a_form_of_a_later_version_is_unknown() -> None:
    assert events.decode(b'{"k":"heartbeat","v":2,"t":1.0,"m":1.0,"step":{"global":4}}') is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"k":"heartbeat","v":1,"t":1.0,"m":1.0,"step":{"global":4}}',
        b'{"k":"step","v":1,"t":1.0,"m":1.0,"step":1}',
        b'{"k":"step","v":1,"t":1.0,"m":1.0,"step":-1,"metrics":{}}',
        b'{"k":"step","v":1,"t":1.0,"m":1.0,"step":9007199254740992,"metrics":{}}',
        b'{"k":"step","v":1,"t":1.0,"m":1.0,"step":1,"metrics":{"loss":"much"}}',
        b'{"k":"step","v":1,"t":1.0,"m":1.0,"step":1,"metrics":{"loss":NaN}}',
        b'{"k":"heartbeat","v":1,"t":1.0',
        b'{"k":"heartbeat","v":1,"t":1.0,"m":1.0,"phase":"\xff"}',
        b'{"v":1,"t":1.0,"m":1.0}',
        pytest.param(b'{"k":"weather","v":1,"x":' + b"[" * 100_000, id="deep"),
        b"[]",
        b"loss 0.69",
        b"\xff\xfe",
    ],
)
def test_damage_is_told_by_the_errors_that_readers_catch(line: bytes) -> None:
    with pytest.raises(events.NOT_READABLE):
        events.decode(line)


@pytest.mark.parametrize(
    ("value", "written"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (0.5, 0.5)]
)
def test_a_number_that_is_not_finite_is_a_string_on_the_line(value: float, written: float | str) -> None:
    event = events.Step(**events.stamp(), step=1, metrics={"loss": events.to_number(value)})
    line = events.encode(event)
    assert json.loads(line)["metrics"]["loss"] == written
    back = events.decode(line)
    assert isinstance(back, events.Step)
    np.testing.assert_equal(events.from_number(back.metrics["loss"]), value)


def test_a_bare_nan_costs_neither_the_row_nor_itself() -> None:
    step = events.Step(
        **events.stamp(), step=1, metrics={"loss": math.nan, "grad_norm": 2.0, "null": "inf"},
        times_s={"step": 1.0, "data": math.nan},
    )  # fmt: skip
    back = events.decode(events.encode(step))
    assert isinstance(back, events.Step)
    assert back.metrics == {"loss": "nan", "grad_norm": 2.0, "null": "inf"}
    assert back.times_s == {"step": 1.0}
    evaluation = events.Eval(**events.stamp(), step=1, metrics={"eval_loss": -math.inf})
    back = events.decode(events.encode(evaluation))
    assert isinstance(back, events.Eval)
    assert back.metrics == {"eval_loss": "-inf"}


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    metrics: dict[str, Any] = {
        "a": np.float64(0.5),
        "b": np.float32(0.25),
        "c": np.int64(3),
        "d": np.float64("nan"),
    }
    back = events.decode(events.encode(events.Step(**events.stamp(), step=1, metrics=metrics)))
    assert isinstance(back, events.Step)
    assert back.metrics == {"a": 0.5, "b": 0.25, "c": 3.0, "d": "nan"}


def test_what_is_no_number_is_refused_where_it_is_put() -> None:
    metrics: Any = {"loss": object()}
    with pytest.raises(TypeError, match="an event cannot hold a object"):
        events.encode(events.Step(**events.stamp(), step=1, metrics=metrics))


def documented() -> dict[str, dict[str, str]]:
    """Field to type by kind, as the tables of the document have them; "every line" is the header."""
    tables: dict[str, dict[str, str]] = {}
    for section in re.split(r"^### ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        kind = section.splitlines()[0].strip().strip("`")
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, flags=re.MULTILINE)
        tables[kind] = {name: kind_of.strip() for name, kind_of in rows}
    return tables


def type_in_words(kind: type[Event], field: msgspec.structs.FieldInfo) -> str:
    hint = without_none(typing.get_type_hints(kind)[field.name])
    if typing.get_origin(hint) is typing.Literal:
        words = ", ".join(f'"{value}"' for value in typing.get_args(hint))
    else:
        words = {
            str: "string", int: "integer", float: "number", bool: "boolean", list[int]: "integers",
            dict[str, str]: "name to string", dict[str, int]: "name to integer",
            dict[str, float]: "name to number", dict[str, events.Number]: "name to number or non-finite",
        }[hint]  # fmt: skip
    return words if field.required else f"{words}?"


def test_the_document_lists_every_kind_with_every_field_and_its_type() -> None:
    header = {field.name: type_in_words(Event, field) for field in msgspec.structs.fields(Event)}
    expected = {"every line": {"k": "string", **header}}
    for tag, kind in events.KINDS.items():
        fields = [field for field in msgspec.structs.fields(kind) if field.name not in header]
        expected[tag] = {field.name: type_in_words(kind, field) for field in fields}
    assert documented() == expected


def test_the_document_names_the_schema_version() -> None:
    assert f"schema version {events.SCHEMA_VERSION}" in DOCUMENT.read_text()
