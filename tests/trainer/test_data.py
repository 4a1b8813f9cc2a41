"""Rows are read from files, fitted to the length, split, and every row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dpo_profiles.schema import Data
from dpo_trainer.data.pairs import make_pairs, schedule
from dpo_trainer.data.source import load_rows
from dpo_trainer.errors import TrainerError

from .conftest import byte_tokenizer, chat, preference_rows, write_rows


def long_row(answer_bytes: int, prompt_bytes: int = 4) -> dict[str, Any]:
    prompt = "p" * prompt_bytes
    return {"chosen": chat(prompt, "a" * answer_bytes), "rejected": chat(prompt, "b" * answer_bytes)}


def test_over_long_pairs_are_dropped_and_counted() -> None:
    rows = [*preference_rows(6), long_row(400), long_row(500)]
    pairs = make_pairs(rows, byte_tokenizer(), Data(max_length_tokens=200, heldout_pairs=2), seed=1)
    assert (pairs.report.rows, pairs.report.dropped_over_long) == (8, 2)
    assert (pairs.report.train, pairs.report.heldout) == (4, 2)
    assert "2 longer than 200 tokens, dropped" in pairs.report.message()
    assert all(pair.length_tokens <= 200 for pair in pairs.train + pairs.heldout)


def test_truncation_cuts_answers_and_drops_pairs_whose_prompt_leaves_no_room() -> None:
    rows = [*preference_rows(3), long_row(400), long_row(4, prompt_bytes=300)]
    data = Data(max_length_tokens=200, over_long="truncate", heldout_fraction=0.0)
    pairs = make_pairs(rows, byte_tokenizer(), data, seed=1)
    assert (pairs.report.truncated, pairs.report.dropped_without_answer) == (1, 1)
    assert {pair.id for pair in pairs.train} == {0, 1, 2, 3}
    assert max(pair.length_tokens for pair in pairs.train) == 200


def test_answers_that_differ_only_behind_the_cut_are_dropped() -> None:
    same = {"chosen": chat("p", "a" * 300 + "x"), "rejected": chat("p", "a" * 300 + "y")}
    data = Data(max_length_tokens=200, over_long="truncate", heldout_fraction=0.0)
    pairs = make_pairs([*preference_rows(2), same], byte_tokenizer(), data, seed=1)
    assert pairs.report.dropped_without_answer == 1


def test_no_pair_left_is_an_error_that_says_why() -> None:
    with pytest.raises(TrainerError, match="6 longer than 32 tokens, dropped"):
        make_pairs(preference_rows(6), byte_tokenizer(), Data(max_length_tokens=32), seed=1)


def test_unusable_rows_are_counted_and_the_first_is_named() -> None:
    rows = [*preference_rows(3), {"chosen": chat("Hi"), "rejected": chat("Hi", "B")}]
    pairs = make_pairs(rows, byte_tokenizer(), Data(heldout_fraction=0.0), seed=1)
    assert pairs.report.unusable == 1
    assert pairs.report.first_unusable.startswith("row 3: chosen does not end")


def test_the_split_goes_by_the_seed_alone() -> None:
    def ids(seed: int) -> list[int]:
        pairs = make_pairs(preference_rows(12), byte_tokenizer(), Data(heldout_pairs=4), seed)
        return [pair.id for pair in pairs.heldout]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


@pytest.mark.parametrize(("fraction", "heldout"), [(0.0, 0), (0.01, 1), (0.5, 3)])
def test_a_fraction_holds_out_at_least_one_pair(fraction: float, heldout: int) -> None:
    pairs = make_pairs(preference_rows(6), byte_tokenizer(), Data(heldout_fraction=fraction), seed=1)
    assert pairs.report.heldout == heldout


def test_a_prompt_that_is_held_out_is_not_trained_on() -> None:
    twice = [row for row in preference_rows(6) for _ in range(2)]
    for number, row in enumerate(twice):
        row = json.loads(json.dumps(row))
        row["chosen"][-1]["content"] += str(number)
        twice[number] = row
    pairs = make_pairs(twice, byte_tokenizer(), Data(heldout_pairs=3), seed=1)
    heldout = {tuple(pair.prompt_ids) for pair in pairs.heldout}
    assert not heldout & {tuple(pair.prompt_ids) for pair in pairs.train}
    assert pairs.report.train + pairs.report.heldout + pairs.report.dropped_shared_prompt == 12


def test_each_pass_of_the_schedule_holds_every_pair_once() -> None:
    pairs = make_pairs(preference_rows(5), byte_tokenizer(), Data(heldout_fraction=0.0), seed=1).train
    order = [pair.id for pair in schedule(pairs, 12, seed=3)]
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order[:5] != order[5:10]
    assert len(order) == 12


def test_jsonl_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "pairs.jsonl", preference_rows(3))
    Dataset.from_list(preference_rows(3)).to_parquet(str(tmp_path / "pairs.parquet"))
    from_lines = load_rows(Data(name=str(lines)))
    from_parquet = load_rows(Data(name=str(tmp_path / "pairs.parquet")))
    assert from_lines.to_list() == from_parquet.to_list() == preference_rows(3)


def test_the_shipped_pairs_load_like_any_data_set() -> None:
    rows = load_rows(Data(name="shipped"))
    assert len(rows) >= 240
    assert {"source", "prompt", "question", "chosen", "rejected"} <= set(rows.column_names)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.jsonl", None, "there is no such file"),
        ("empty.jsonl", "", "holds no rows"),
        ("broken.jsonl", '{"chosen": [\n', "cannot be read"),
        ("columns.jsonl", '{"question": "Hi", "rejected": "B"}\n', "has no column chosen"),
        ("pairs.csv", "chosen,rejected\n", "neither .jsonl nor .parquet"),
    ],
)
def test_data_that_cannot_be_used_is_one_line_naming_the_file(
    tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(TrainerError, match=reason) as failure:
        load_rows(Data(name=str(path)))
    assert str(path) in failure.value.format_message()
    assert "\n" not in failure.value.format_message()


def test_a_hub_data_set_without_a_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dpo_trainer.model import reach

    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    try:
        with pytest.raises(TrainerError, match="the hub does not answer"):
            load_rows(Data(name="nobody/has-this-data-set"))
    finally:
        reach.set_offline(False)
