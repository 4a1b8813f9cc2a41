"""`docs/protocol.md` and the code say the same, field by field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from dpo_telemetry.budget import Held, RankBudget
from dpo_telemetry.wire import messages
from dpo_telemetry.wire.messages import KINDS, Header

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
PARTS: dict[str, type[msgspec.Struct]] = {"rank_budget": RankBudget, "held": Held}
"""What stands inside of messages, by its name on the page."""
LIMITS = {
    "MAX_MESSAGE_BYTES", "MAX_REQUEST_BYTES", "MAX_READ_BYTES", "MAX_DELTA_BYTES", "MAX_BUCKETS", "MAX_BUDGET_RANKS",
    "HEARTBEAT_INTERVAL_S", "STALE_AFTER_S", "LOST_AFTER_S",
}  # fmt: skip


def documented(kind: str) -> list[tuple[str, str, str]]:
    """(field, type, default) of each row in the table under a kind's heading."""
    section = re.search(rf"^### `{kind}`\n(.*?)(?=^##|\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None, f"{kind} has no section"
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \|", section[1], re.MULTILINE)
    return [(field, type_.strip(), default.strip()) for field, type_, default in rows]


def coded(struct: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return [(field.name, describe(field.type), default_of(field)) for field in info.fields]


def default_of(field: inspect.Field) -> str:
    if field.required:
        return ""
    return "`nil`" if field.default is None else f"`{msgspec.json.encode(field.default).decode()}`"


def describe(type_: Any) -> str:
    match type_:
        case inspect.StrType():
            return "text" + bounds(type_.min_length, type_.max_length, " characters")
        case inspect.IntType():
            return "integer" + bounds(type_.ge, type_.le, "")
        case inspect.FloatType():
            return "number" if type_.le is None else f"number, above {type_.gt:g}, at most {type_.le:g}"
        case inspect.BytesType():
            return "bytes"
        case inspect.ListType():
            return f"list of {describe(type_.item_type)}"
        case inspect.DictType():
            return f"map of {describe(type_.key_type)} to {describe(type_.value_type)}"
        case inspect.LiteralType():
            return "one of " + ", ".join(f"`{value}`" for value in sorted(map(str, type_.values)))
        case inspect.UnionType():
            return " or ".join("nil" if isinstance(t, inspect.NoneType) else describe(t) for t in type_.types)
        case inspect.StructType():
            return next(f"`{name}`" for name, struct in PARTS.items() if struct is type_.cls)
    raise AssertionError(f"no words for {type_}")


def bounds(low: float | None, high: float | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f", at least {low:g}{unit}"
    return f", at most {power(high)}{unit}" if not low else f", {low:g} to {power(high)}{unit}"


def power(value: float) -> str:
    return "2^62" if value == 1 << 62 else f"{value:g}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_message_is_documented_as_it_is_coded(kind: str) -> None:
    assert documented(kind) == coded(KINDS[kind])


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_message_is_documented_as_it_is_coded(part: str) -> None:
    assert documented(part) == coded(PARTS[part])


def test_the_header_is_documented_as_it_is_coded() -> None:
    assert documented("header") == coded(Header)


def test_no_message_is_documented_that_the_code_does_not_know() -> None:
    headings = re.findall(r"^### `(\w+)`$", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(["header", *KINDS, *PARTS])


def test_version_and_limits_are_documented_as_they_are_coded() -> None:
    text = DOCUMENT.read_text()
    assert re.search(r"^Version \*\*(\d+)\*\*", text, re.MULTILINE)[1] == str(messages.PROTOCOL_VERSION)  # type: ignore[index]
    written = dict(re.findall(r"^\| `([A-Z_]+)` \| ([\d.,]+) ", text, re.MULTILINE))
    assert {name: float(value.replace(",", "")) for name, value in written.items()} == {
        name: float(getattr(messages, name)) for name in LIMITS
    }
