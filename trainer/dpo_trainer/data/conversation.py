"""A row of a preference data set as a shared prompt and two last answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Prompt = list[Message] | str
"""Turns of a conversation, or raw text where the data set has no turns."""


class UnusableRowError(Exception):
    """A row that cannot be trained on, and why."""


@dataclass(frozen=True, slots=True)
class Preference:
    """What both answers follow, and the answers; each is a last assistant turn, or raw text."""

    prompt: Prompt
    chosen: Message | str
    rejected: Message | str


def read_row(row: Mapping[str, Any]) -> Preference:
    """Split one row at its last assistant turn.

    `chosen` and `rejected` are lists of `{"role", "content"}` that share all turns but the last;
    `prompt` may hold the shared turns, or the text of the only user turn, or be left out. Or all
    three are strings.

    Raises:
        UnusableRowError: the row has another shape, or the answers are no alternatives.
    """
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _from_text(prompt, chosen, rejected)
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise UnusableRowError("chosen and rejected are neither both texts nor both lists of turns")
    shared, good = _split_last(_conversation(prompt, chosen), "chosen")
    other_shared, bad = _split_last(_conversation(prompt, rejected), "rejected")
    if shared != other_shared:
        raise UnusableRowError("chosen and rejected differ before their last turn")
    if good["content"] == bad["content"]:
        raise UnusableRowError("chosen and rejected are the same")
    return Preference(shared, good, bad)


def _from_text(prompt: object, chosen: str, rejected: str) -> Preference:
    if not isinstance(prompt, str) or not prompt:
        raise UnusableRowError("chosen and rejected are texts, and there is no prompt text beside them")
    if not chosen or not rejected:
        raise UnusableRowError("an answer is empty")
    if chosen == rejected:
        raise UnusableRowError("chosen and rejected are the same")
    return Preference(prompt, chosen, rejected)


def _conversation(prompt: object, turns: list[Any]) -> list[Message]:
    messages = [_message(turn) for turn in turns]
    if isinstance(prompt, list):
        before = [_message(turn) for turn in prompt]
        return messages if messages[: len(before)] == before else before + messages
    if isinstance(prompt, str) and prompt and not any(m["role"] == "user" for m in messages):
        return [{"role": "user", "content": prompt}, *messages]
    return messages


def _message(turn: object) -> Message:
    """One turn without the empty columns that a table adds to it."""
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise UnusableRowError("a turn has no role")
    if not isinstance(turn.get("content"), str):
        raise UnusableRowError("a turn has no text content")
    return {key: value for key, value in turn.items() if value is not None}


def _split_last(messages: list[Message], column: str) -> tuple[list[Message], Message]:
    if not messages or messages[-1]["role"] != "assistant":
        raise UnusableRowError(f"{column} does not end with an assistant turn")
    if len(messages) < 2:
        raise UnusableRowError(f"{column} has no turn before the answer, and there is no prompt")
    if not messages[-1]["content"].strip():
        raise UnusableRowError("an answer is empty")
    return messages[:-1], messages[-1]
