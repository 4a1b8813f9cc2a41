"""The schema as a list of fields: what messages, comments, documentation and `--set` work from."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from dpo_profiles.schema import Profile


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of the profile."""

    section: str
    """Table it stands in; empty for the fields above all tables."""
    name: str
    type: str
    """Kind of value in one word or as its choices."""
    allowed: str
    """What may be given, as a phrase that follows "give"."""
    unit: str
    default: Any
    """`msgspec.NODEFAULT` where the field has to be given."""
    description: str
    choices: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """`section.name`, as messages and `--set` spell it."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def required(self) -> bool:
        """Whether a profile without it is refused."""
        return self.default is msgspec.NODEFAULT

    @property
    def is_text(self) -> bool:
        """Whether its value is written as text."""
        return self.type == "text" or bool(self.choices)


@cache
def all_fields() -> tuple[Field, ...]:
    """Every field in the schema's own order."""
    found: list[Field] = []
    for outer in _struct(inspect.type_info(Profile)).fields:
        if isinstance(outer.type, inspect.StructType):
            found += [_field(outer.name, inner) for inner in outer.type.fields]
        else:
            found.append(_field("", outer))
    return tuple(found)


@cache
def sections() -> tuple[str, ...]:
    """Names of the tables in the schema's own order."""
    return tuple(dict.fromkeys(field.section for field in all_fields() if field.section))


@cache
def section_descriptions() -> dict[str, str]:
    """Table name to the sentence its struct carries."""
    outer = _struct(inspect.type_info(Profile)).fields
    return {f.name: (f.type.cls.__doc__ or "") for f in outer if isinstance(f.type, inspect.StructType)}


def fields_of(section: str) -> tuple[Field, ...]:
    """Fields of one table, or those above all tables for an empty name."""
    return tuple(field for field in all_fields() if field.section == section)


def find_field(path: str) -> Field | None:
    """The field called `section.name`, or None."""
    return next((field for field in all_fields() if field.path == path), None)


def _struct(info: inspect.Type) -> inspect.StructType:
    assert isinstance(info, inspect.StructType)
    return info


def _field(section: str, info: inspect.Field) -> Field:
    meta, kind = info.type, info.type
    unit = description = ""
    if isinstance(meta, inspect.Metadata):
        kind = meta.type
        unit = (meta.extra or {}).get("unit", "")
        description = (meta.extra_json_schema or {}).get("description", "")
    type_word, allowed, choices = _describe(kind)
    return Field(
        section=section,
        name=info.name,
        type=type_word,
        allowed=allowed,
        unit=unit,
        default=info.default,
        description=description,
        choices=choices,
    )


def _describe(kind: inspect.Type) -> tuple[str, str, tuple[str, ...]]:
    """Type word, phrase of what is allowed, choices."""
    match kind:
        case inspect.BoolType():
            return "true/false", "true or false", ()
        case inspect.IntType():
            return "whole number", "a whole number" + _range(kind), ()
        case inspect.FloatType():
            return "number", "a number" + _range(kind), ()
        case inspect.LiteralType():
            choices = tuple(str(value) for value in kind.values)
            return "choice", "one of " + ", ".join(choices), choices
        case inspect.VarTupleType():
            least = f", at least {kind.min_length}" if kind.min_length else ""
            return "list of text", f'a list of names{least}, as in ["a", "b"]', ()
        case inspect.StrType(pattern=str()):
            return (
                "text",
                "a letter or digit, then letters, digits, dots, dashes or underscores, at most 64",
                (),
            )
        case inspect.StrType():
            return "text", "text that is not empty" if kind.min_length else "text", ()
    raise TypeError(f"the schema uses {kind}, which has no words here")


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    limits = []
    if kind.ge is not None:
        limits.append(f"of at least {kind.ge:g}")
    if kind.gt is not None:
        limits.append(f"above {kind.gt:g}")
    if kind.le is not None:
        limits.append(f"of at most {kind.le}")
    if kind.lt is not None:
        limits.append(f"below {kind.lt:g}")
    return " " + " and ".join(limits) if limits else ""
