from __future__ import annotations

import json
from functools import cache
from typing import Any

from dpo_profiles.data import COLUMNS, shipped_pairs_path

Row = dict[str, Any]


@cache
def rows() -> tuple[Row, ...]:
    lines = shipped_pairs_path().read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


def context(row: Row) -> list[dict[str, str]]:
    """The conversation up to the answer, which both sides share."""
    messages: list[dict[str, str]] = row["chosen"][:-1]
    return messages


def test_there_are_at_least_240_pairs() -> None:
    assert len(rows()) >= 240


def test_columns_are_those_of_the_hub_data_set() -> None:
    for row in rows():
        assert set(row) == set(COLUMNS)
        for column in ("source", "prompt", "question"):
            assert isinstance(row[column], str)
            assert row[column].strip()


def test_each_conversation_alternates_and_ends_with_the_assistant() -> None:
    for row in rows():
        for side in ("chosen", "rejected"):
            roles = [message["role"] for message in row[side]]
            turns = roles[1:] if roles[0] == "system" else roles
            assert turns == ["user", "assistant"] * (len(turns) // 2), row["prompt"]
            assert turns
            for message in row[side]:
                assert set(message) == {"role", "content"}
                assert message["content"].strip()


def test_both_sides_differ_in_the_last_answer_only() -> None:
    for row in rows():
        assert row["chosen"][:-1] == row["rejected"][:-1], row["prompt"]
        assert row["chosen"][-1]["content"] != row["rejected"][-1]["content"], row["prompt"]


def test_some_conversations_have_several_user_turns() -> None:
    several = [row for row in rows() if sum(m["role"] == "user" for m in row["chosen"]) >= 2]
    assert len(several) >= 20


def test_some_conversations_open_with_a_system_message() -> None:
    assert sum(row["chosen"][0]["role"] == "system" for row in rows()) >= 8


def test_a_few_prompts_are_too_long_for_the_demo() -> None:
    words = [sum(len(m["content"].split()) for m in context(row)) for row in rows()]
    assert sum(count > 900 for count in words) >= 3


def test_length_does_not_give_the_better_answer_away() -> None:
    longer = [len(r["chosen"][-1]["content"]) > len(r["rejected"][-1]["content"]) for r in rows()]
    assert 0.3 <= sum(longer) / len(longer) <= 0.7


def test_no_conversation_stands_there_twice() -> None:
    contexts = [json.dumps(context(row)) for row in rows()]
    assert len(set(contexts)) == len(contexts)


def test_pairs_come_from_several_topics_and_languages() -> None:
    assert len({row["source"] for row in rows()}) >= 5
    beyond_ascii = [row for row in rows() if sum(ord(c) > 127 for c in row["chosen"][-1]["content"]) >= 3]
    assert len(beyond_ascii) >= 10
