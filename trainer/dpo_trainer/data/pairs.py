"""The pairs of a run: what is trained on, in which order, and what is held out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_profiles.schema import Data
from dpo_trainer.data.conversation import UnusableRowError, read_row
from dpo_trainer.data.lengths import DataReport, fit
from dpo_trainer.data.tokenise import Pair, PairTokenizer
from dpo_trainer.errors import Refused, TrainerError

PAIR_IDS = "pair_ids"


@dataclass(frozen=True)
class RunPairs:
    """Training and held-out pairs, and how they came about."""

    train: list[Pair]
    heldout: list[Pair]
    report: DataReport

    def evenly(self, at_once: int) -> RunPairs:
        """The same with as many held-out pairs as ranks that take `at_once` together can evaluate once each.

        Raises:
            Refused: there are fewer held-out pairs than that.
        """
        kept = len(self.heldout) // at_once * at_once
        if self.heldout and not kept:
            raise Refused(
                f"data.heldout_pairs: {len(self.heldout)} pairs are held out, and the ranks evaluate "
                f"{at_once} at once; hold out at least {at_once}"
            )
        self.report.dropped_uneven = len(self.heldout) - kept
        self.report.heldout = kept
        return RunPairs(self.train, self.heldout[:kept], self.report)


def make_pairs(
    rows: Iterable[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, data: Data, seed: int
) -> RunPairs:
    """Tokenise, fit and split the rows of a data set.

    The split is drawn from the pairs that are usable, by `seed`; a training pair with a prompt
    that is held out is left out, so that held-out figures say something about new prompts.

    Raises:
        TrainerError: no pair is left to train on.
    """
    report = DataReport()
    pairs = fit(_tokenise(rows, tokenizer, report), data.max_length_tokens, data.over_long, report)
    if not pairs:
        raise TrainerError(f"data.name: {data.name}: no pair can be trained on: {report.message()}")
    order = np.random.default_rng(seed).permutation(len(pairs))
    shuffled = [pairs[i] for i in order]
    count = data.heldout_pairs or _share(len(pairs), data.heldout_fraction)
    heldout, train = shuffled[:count], shuffled[count:]
    heldout.sort(key=lambda pair: pair.length_tokens)  # batches of like length have little padding
    prompts = {tuple(pair.prompt_ids) for pair in heldout}
    fresh = [pair for pair in train if tuple(pair.prompt_ids) not in prompts]
    report.dropped_shared_prompt = len(train) - len(fresh)
    train = fresh[: data.train_pairs or None]
    report.train, report.heldout = len(train), len(heldout)
    if not train:
        raise TrainerError(
            f"data.heldout_pairs: no pair is left to train on: {report.message()}; hold out fewer"
        )
    return RunPairs(train, heldout, report)


def _share(pairs: int, fraction: float) -> int:
    """Pairs that a fraction comes to: at least one, where any are asked for."""
    return max(1, round(pairs * fraction)) if fraction > 0 else 0


def _tokenise(
    rows: Iterable[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, report: DataReport
) -> list[Pair]:
    encoder = PairTokenizer(tokenizer)
    pairs = []
    for number, row in enumerate(rows):
        report.rows += 1
        try:
            pairs.append(encoder.pair(number, read_row(row)))
        except UnusableRowError as error:
            report.unusable += 1
            report.first_unusable = report.first_unusable or f"row {number}: {error}"
    report.moved_prompts = encoder.moved_prompts
    return pairs


def schedule(pairs: list[Pair], needed: int, seed: int) -> list[Pair]:
    """The next `needed` training pairs in order: one shuffled pass after another.

    The whole order is laid down before the run, so that every optimizer step has all its
    micro-batches, and a resumed run goes on where the other stopped.
    """
    order: list[Pair] = []
    for epoch in range(-(-needed // len(pairs))):
        permutation = np.random.default_rng((seed, epoch)).permutation(len(pairs))
        order += [pairs[i] for i in permutation]
    return order[:needed]


def as_dataset(pairs: list[Pair]) -> Dataset:
    """The table that TRL's collator reads, with the pairs' ids."""
    return Dataset.from_dict(
        {
            "id": [pair.id for pair in pairs],
            "prompt_ids": [pair.prompt_ids for pair in pairs],
            "chosen_ids": [pair.chosen_ids for pair in pairs],
            "rejected_ids": [pair.rejected_ids for pair in pairs],
        }
    )


class PairCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, which also carries the pairs' ids: [pairs], int64."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Batch of [2 x pairs, tokens]: chosen answers first, then rejected ones."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch[PAIR_IDS] = torch.tensor([example["id"] for example in examples])
        return batch
