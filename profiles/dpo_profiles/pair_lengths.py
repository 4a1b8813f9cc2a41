"""How long preference pairs are at least, told without a tokenizer.

Whoever only starts runs has no tokenizer: a conversation is rendered as ChatML, each marker counts as a token, and
text counts by its bytes. The figures are lower bounds, so that what is refused by them is refused rightly; the
trainer counts the real tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dpo_profiles.data import SHIPPED, shipped_pairs_path
from dpo_profiles.schema import Data

BYTES_PER_TOKEN = 6.0
"""More English than this no token holds on average: the most of any prompt or answer of the shipped pairs is 5.6
bytes a token with SmolLM2's vocabulary, and 3.7 over all of them."""
SAMPLE_ROWS = 256
"""Rows of a local file that lengths are taken from."""
TURN_TOKENS = 5
"""`<|im_start|>`, role, newline, `<|im_end|>`, newline."""
WAITING_TOKENS = 3
"""`<|im_start|>assistant` and a newline, behind which the answer starts."""
SYSTEM_TURN = "You are a helpful assistant."
"""Templates that write ChatML (Qwen's, SmolLM2's) open with such a turn where the conversation has none."""


class PairLength(msgspec.Struct, frozen=True):
    """Least number of tokens of one pair."""

    prompt_tokens: float
    whole_tokens: float
    """Prompt and the longer answer."""


def local_rows(data: Data) -> Path | None:
    """The JSON lines that `data.name` means and that are here: the shipped pairs, or a local .jsonl file."""
    path = shipped_pairs_path() if data.name == SHIPPED else Path(os.path.expanduser(data.name))
    return path if path.suffix == ".jsonl" and path.is_file() else None


def sample_lengths(path: Path, rows: int = SAMPLE_ROWS) -> list[PairLength]:
    """Lengths of the pairs in the first `rows` rows; rows that are no pair are left out.

    Raises:
        OSError: the file cannot be read.
    """
    found = []
    for number, line in enumerate(_lines(path)):
        if number == rows:
            break
        if (length := _length(line)) is not None:
            found.append(length)
    return found


def training_pairs(data: Data, rows: int) -> int:
    """Pairs that are left to train on when so many rows are all usable."""
    # At least one is held out where a fraction is asked for.
    fraction = max(1, round(rows * data.heldout_fraction)) if data.heldout_fraction else 0
    left = max(rows - (data.heldout_pairs or fraction), 0)
    return min(left, data.train_pairs) if data.train_pairs else left


def training_pairs_up_to(path: Path, data: Data, enough: int) -> int | None:
    """Pairs of a file that are left to train on at most; counting ends at `enough`. None for a file without pairs.

    Raises:
        OSError: the file cannot be read.
    """
    rows = 0
    most = min(enough, data.train_pairs or enough)
    for line in _lines(path):
        rows += _length(line) is not None
        if training_pairs(data, rows) >= most:
            break
    return training_pairs(data, rows) if rows else None


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())


def _length(line: bytes) -> PairLength | None:
    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return None
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        # The prompt may be rendered already, so nothing is added to it.
        return _pair(_text_tokens(prompt), chosen, rejected) if isinstance(prompt, str) else None
    turns, last = _turns(chosen), _turns(rejected)
    if not turns or not last:
        return None
    shared = turns[:-1] or _turns(prompt) or [("user", prompt)]
    return _pair(_rendered_tokens(shared), turns[-1][1], last[-1][1])


def _pair(prompt: float, chosen: object, rejected: object) -> PairLength:
    # The token that ends the turn is part of the answer.
    answer = 1 + max(_text_tokens(chosen), _text_tokens(rejected))
    return PairLength(prompt, prompt + answer)


def _turns(value: object) -> list[tuple[object, object]]:
    if not isinstance(value, list):
        return []
    return [(turn.get("role"), turn.get("content")) for turn in value if isinstance(turn, dict)]


def _rendered_tokens(turns: list[tuple[object, object]]) -> float:
    opened = turns if turns[0][0] == "system" else [("system", SYSTEM_TURN), *turns]
    return sum(TURN_TOKENS + _text_tokens(content) for _role, content in opened) + WAITING_TOKENS


def _text_tokens(text: object) -> float:
    return len(text.encode(errors="replace")) / BYTES_PER_TOKEN if isinstance(text, str) else 0.0
