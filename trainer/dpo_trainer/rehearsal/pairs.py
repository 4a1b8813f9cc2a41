"""A sample of a profile's preference pairs that a job can train on."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from transformers import PreTrainedTokenizerBase

from dpo_profiles.schema import Data, Profile
from dpo_trainer.data.conversation import Message, Preference, UnusableRowError, read_row
from dpo_trainer.data.lengths import DataReport, fit
from dpo_trainer.data.source import load_rows
from dpo_trainer.data.tokenise import PairTokenizer
from dpo_trainer.errors import TrainerError, first_line
from dpo_trainer.model import reach
from dpo_trainer.rehearsal.shorten import Shortener

Row = dict[str, Any]

PAIRS_AT_MOST = 256
TRAINING_PAIRS_AT_LEAST = 64
CPU_TOKENS_AT_MOST = 192
"""A CPU pays by the token, and above all by the token and row of a large vocabulary."""
ROWS_READ_AT_MOST = 20_000
"""A data set of which nearly all pairs are too long is not read to its end."""


@dataclass(frozen=True)
class Sample:
    """The pairs as rows, and what was done to get them."""

    rows: list[Row]
    notes: list[str]


def sample_pairs(
    profile: Profile, tokenizer: PreTrainedTokenizerBase, ranks: int, *, shorten: bool
) -> Sample:
    """The first usable pairs of the profile's data; the shipped ones where its data cannot be had.

    At most 256, or more where the held-out share of so few would leave a rank nothing to evaluate. On a CPU
    they are short ones, as long as there are enough.

    Args:
        shorten: cut the text of pairs that are too long, because the tokenizer is one of bytes.

    Raises:
        TrainerError: the data set is there and cannot be used.
    """
    data = profile.data
    source, notes = _open(data)
    wanted = _pairs_wanted(profile, ranks)
    limit = data.max_length_tokens
    if not torch.cuda.is_available():
        limit = min(limit, CPU_TOKENS_AT_MOST)
    encoder = PairTokenizer(tokenizer)
    rows, shortened = _choose(source(), encoder, data, limit, wanted, shorten=shorten)
    if len(rows) < TRAINING_PAIRS_AT_LEAST and limit < data.max_length_tokens:
        limit = data.max_length_tokens
        rows, shortened = _choose(source(), encoder, data, limit, wanted, shorten=shorten)
    if not rows:
        raise TrainerError(
            f"data.name: {data.name}: no pair of its first {ROWS_READ_AT_MOST} rows can be trained on within "
            f"data.max_length_tokens = {limit}; raise it or give another data set"
        )
    if limit < data.max_length_tokens:
        notes.append(f"for a CPU, pairs have at most {limit} of {data.max_length_tokens} tokens")
    if shortened:
        notes.append(
            f"a byte is a token for the stand-in: {shortened} of {len(rows)} pairs are cut to {limit} tokens"
        )
    if len(rows) < wanted:
        notes.append(f"the data set has {len(rows)} usable pairs")
    return Sample(rows, notes)


def _choose(
    source: Iterator[Preference],
    encoder: PairTokenizer,
    data: Data,
    limit_tokens: int,
    wanted: int,
    *,
    shorten: bool,
) -> tuple[list[Row], int]:
    """The first usable pairs, and how many of them are shortened."""
    cut = Shortener(encoder, limit_tokens) if shorten else None
    policy = data.over_long if limit_tokens == data.max_length_tokens else "drop"
    rows: list[Row] = []
    shortened = 0
    for preference in itertools.islice(source, ROWS_READ_AT_MOST):
        with suppress(UnusableRowError):
            chosen = cut(preference) if cut else preference
            if fit([encoder.pair(0, chosen)], limit_tokens, policy, DataReport()):
                rows.append(_as_row(chosen))
                shortened += chosen is not preference
        if len(rows) == wanted:
            break
    return rows, shortened


def write_pairs(rows: list[Row], file: Path) -> None:
    """Write rows as JSON lines.

    Raises:
        OSError: the disk does not take it.
    """
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _pairs_wanted(profile: Profile, ranks: int) -> int:
    """Pairs of which enough are held out for an evaluation of all ranks, and enough are left to train on."""
    data = profile.data
    training = max(TRAINING_PAIRS_AT_LEAST, ranks * profile.train.micro_batch_pairs)
    if data.heldout_pairs:
        return max(PAIRS_AT_MOST, data.heldout_pairs + training)
    at_once = ranks * profile.eval.micro_batch_pairs
    for_evaluation = math.ceil(at_once / data.heldout_fraction) if data.heldout_fraction else 0
    for_training = math.ceil(training / (1 - data.heldout_fraction))
    return max(PAIRS_AT_MOST, for_evaluation, for_training)


def _open(data: Data) -> tuple[Callable[[], Iterator[Preference]], list[str]]:
    """What gives the data set's preferences one by one, and what stands in for it."""
    if _is_here(data) or not reach.hub_answers():
        try:
            rows = load_rows(data)
            return lambda: _preferences(rows), [f"pairs are the first usable ones of {data.name}"]
        except TrainerError as error:
            if _is_here(data):
                raise
            reason = error.message.rpartition("; ")[0] or error.message
        shipped = load_rows(Data())
        note = f"{reason}: the shipped pairs stand in, numbered where they are needed more than once"
        return lambda: _without_end(shipped), [note]
    return lambda: _preferences(_stream(data)), [f"pairs are the first usable ones of {data.name}, streamed"]


def _is_here(data: Data) -> bool:
    path = Path(data.name).expanduser()
    local = path.suffix in (".jsonl", ".json", ".parquet") or path.exists()
    return data.name == "shipped" or local or data.name.startswith((".", "/", "~"))


def _stream(data: Data) -> Iterator[Row]:
    """Rows of a hub data set as they are needed, so that a large one is not downloaded."""
    where = f"data.name: {data.name}"
    reach.set_offline(False)
    try:
        rows = datasets.load_dataset(
            data.name, split=data.split, revision=data.revision or None, streaming=True
        )
        for row in rows:
            if "chosen" not in row or "rejected" not in row:
                raise TrainerError(
                    f"{where}: has no columns chosen and rejected (it has {', '.join(row)}); "
                    "rename the columns or give another data set"
                )
            yield row
    except DatasetNotFoundError as error:
        raise TrainerError(f"{where}: is not on the hub, nor a file here; check the name") from error
    except (DatasetGenerationError, ValueError, OSError) as error:
        raise TrainerError(f"{where}: cannot be read: {first_line(error)}") from error


def _preferences(rows: Iterable[Row]) -> Iterator[Preference]:
    for row in rows:
        with suppress(UnusableRowError):
            yield read_row(row)


def _without_end(rows: Iterable[Row]) -> Iterator[Preference]:
    """The same pairs over and over; later rounds have numbered prompts, so that no prompt occurs twice."""
    for number in itertools.count(1):
        for preference in _preferences(rows):
            yield preference if number == 1 else _numbered(preference, number)


def _numbered(preference: Preference, number: int) -> Preference:
    prompt = preference.prompt
    if isinstance(prompt, str):
        return replace(preference, prompt=f"{number}. {prompt}")
    last = {**prompt[-1], "content": f"{number}. {prompt[-1]['content']}"}
    return replace(preference, prompt=[*prompt[:-1], last])


def _as_row(preference: Preference) -> Row:
    """The columns of the shipped pairs: texts, or conversations with the last question beside them."""
    prompt = preference.prompt
    if isinstance(prompt, str):
        return {"prompt": prompt, "chosen": preference.chosen, "rejected": preference.rejected}
    questions = [turn["content"] for turn in prompt if turn["role"] == "user"]
    turns: list[Message | str] = [*prompt]
    return {
        "prompt": questions[-1] if questions else "",
        "chosen": [*turns, preference.chosen],
        "rejected": [*turns, preference.rejected],
    }
