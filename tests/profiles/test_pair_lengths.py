"""Lengths of pairs without a tokenizer are lower bounds, in tokens."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from dpo_profiles.data import shipped_pairs_path
from dpo_profiles.pair_lengths import local_rows, sample_lengths, training_pairs, training_pairs_up_to
from dpo_profiles.schema import Data

SYSTEM = 5 + len("You are a helpful assistant.") / 6


def turn(role: str, characters: int) -> dict[str, str]:
    return {"role": role, "content": "x" * characters}


def written(folder: Path, *rows: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        (
            {
                "chosen": [turn("user", 60), turn("assistant", 6)],
                "rejected": [turn("user", 60), turn("assistant", 12)],
            },
            SYSTEM + 5 + 10 + 3,
            1 + 2,
        ),
        (
            {
                "chosen": [turn("system", 12), turn("user", 6), turn("assistant", 6)],
                "rejected": [turn("system", 12), turn("user", 6), turn("assistant", 6)],
            },
            5 + 2 + 5 + 1 + 3,
            1 + 1,
        ),
        (
            {"prompt": "x" * 12, "chosen": [turn("assistant", 6)], "rejected": [turn("assistant", 18)]},
            SYSTEM + 5 + 2 + 3,
            1 + 3,
        ),
        (
            {
                "prompt": [turn("user", 30)],
                "chosen": [turn("assistant", 6)],
                "rejected": [turn("assistant", 6)],
            },
            SYSTEM + 5 + 5 + 3,
            1 + 1,
        ),
        ({"prompt": "x" * 12, "chosen": "x" * 6, "rejected": "x" * 24}, 2, 1 + 4),
    ],
    ids=["default system turn", "own system turn", "prompt text", "prompt turns", "texts"],
)
def test_markers_count_as_tokens_and_text_by_its_bytes(
    tmp_path: Path, row: object, prompt: float, answer: float
) -> None:
    (length,) = sample_lengths(written(tmp_path, row))
    assert length.prompt_tokens == pytest.approx(prompt)
    assert length.whole_tokens == pytest.approx(prompt + answer)


def test_what_is_no_pair_has_no_length(tmp_path: Path) -> None:
    bad: list[object] = [3, {}, {"chosen": "a", "rejected": "b"}, {"chosen": [], "rejected": []}]
    assert sample_lengths(written(tmp_path, *bad)) == []


def test_a_sample_is_the_first_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 6 * n, "chosen": "a", "rejected": "b"} for n in range(1, 6)]
    assert [length.prompt_tokens for length in sample_lengths(written(tmp_path, *rows), 3)] == [1, 2, 3]


def test_rows_are_here_for_the_shipped_pairs_and_for_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path, {})
    assert local_rows(Data(name="shipped")) == shipped_pairs_path()
    assert local_rows(Data(name=str(path))) == path
    for elsewhere in ("some/data", str(tmp_path / "no.jsonl"), "pairs.parquet", "~no-such-user/x.jsonl"):
        assert local_rows(Data(name=elsewhere)) is None


def test_pairs_to_train_on_are_what_is_not_held_out() -> None:
    assert training_pairs(Data(heldout_fraction=0.01), 100) == 99
    assert training_pairs(Data(heldout_fraction=0.01), 10) == 9, "at least one is held out"
    assert training_pairs(Data(heldout_fraction=0.0), 10) == 10
    assert training_pairs(Data(heldout_pairs=20), 10) == 0
    assert training_pairs(Data(heldout_pairs=2, train_pairs=3), 10) == 3


def test_counting_ends_when_there_are_enough(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = written(tmp_path, *[row] * 10, {})
    data = Data(heldout_pairs=2)
    assert training_pairs_up_to(path, data, 5) == 5
    assert training_pairs_up_to(path, data, 50) == 8, "a row that is no pair does not count"
    assert training_pairs_up_to(path, msgspec.structs.replace(data, train_pairs=3), 50) == 3
    assert training_pairs_up_to(written(tmp_path, {}), data, 5) is None
