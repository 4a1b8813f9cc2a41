"""Which metrics share a chart: training with evaluation, chosen with rejected."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dpo_telemetry.text import printable
from dpo_tui.charts.picture import Ink

FIRST = (
    "loss", "rewards", "rewards/margins", "rewards/accuracies", "grad_norm", "learning_rate", "logps", "logits",
)  # fmt: skip
"""Titles that come before all others, in this order."""

_SIDE = re.compile(r"(?:^|(?<=[/_.]))(chosen|rejected)(?=$|[/_.])")
_EVAL = "eval_"


@dataclass(frozen=True, slots=True)
class Member:
    """One metric of a chart."""

    metric: str
    name: str
    """What the legend calls it."""
    ink: Ink
    evaluation: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One chart."""

    title: str
    members: tuple[Member, ...]


def grouped(names: Iterable[str]) -> tuple[Group, ...]:
    """Charts for these metrics: the important ones first, then in the order of the names."""
    names = list(names)
    titles = _titles(names)
    groups: dict[str, list[Member]] = {}
    for name in names:
        groups.setdefault(titles[name], []).append(_member(name, paired=titles[name] != _base(name)))
    ordered = sorted(groups, key=lambda title: FIRST.index(title) if title in FIRST else len(FIRST))
    # Later lines lie on top: evaluations are few and must not be covered.
    return tuple(
        Group(title, tuple(sorted(groups[title], key=lambda member: member.evaluation))) for title in ordered
    )


def matching(groups: Iterable[Group], text: str) -> tuple[Group, ...]:
    """Charts whose title or one of whose metrics holds `text`, a regular expression if it is one."""
    try:
        found = re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError):
        found = re.compile(re.escape(text), re.IGNORECASE)
    return tuple(
        group
        for group in groups
        if found.search(group.title) or any(found.search(member.metric) for member in group.members)
    )


def shown_title(group: Group) -> str:
    """The title as a terminal may show it."""
    return printable(group.title)


def _base(name: str) -> str:
    return name.removeprefix(_EVAL) or name


def _titles(names: list[str]) -> dict[str, str]:
    """Title of each metric's chart; a side without its other side keeps its own name."""
    sides: dict[str, set[str]] = {}
    for name in names:
        if found := _SIDE.search(_base(name)):
            sides.setdefault(_without_side(_base(name)), set()).add(found[1])
    plain = {_base(name) for name in names}
    titles = {}
    for name in names:
        base = _base(name)
        pair = _without_side(base)
        whole = _SIDE.search(base) is not None and len(sides[pair]) == 2 and pair not in plain
        titles[name] = pair if whole else base
    return titles


def _without_side(base: str) -> str:
    left = _SIDE.sub("", base, count=1)
    return re.sub(r"([/_.])[/_.]+", r"\1", left).strip("/_.") or base


def _member(name: str, *, paired: bool) -> Member:
    evaluation = name.startswith(_EVAL) and _base(name) != name
    side = _SIDE.search(_base(name))
    if paired and side:
        ink = Ink.CHOSEN if side[1] == "chosen" else Ink.REJECTED
        return Member(name, f"eval {side[1]}" if evaluation else side[1], ink, evaluation)
    if evaluation:
        return Member(name, "eval", Ink.EVAL, evaluation)
    return Member(name, "train", Ink.TRAIN, evaluation)
