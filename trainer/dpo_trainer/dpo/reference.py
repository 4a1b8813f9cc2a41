"""Reference log-probs, kept for the batches that come again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

LogProbs = tuple[torch.Tensor, torch.Tensor]
"""Summed log-probs of the chosen and the rejected answers, each [pairs], float32, in nats."""


class ReferenceLogProbs:
    """The frozen reference's view of a batch.

    The reference does not change, so a batch that comes again in each evaluation is computed once;
    a training batch hardly ever comes again, because each pass has its own order. It is computed
    when it is first needed rather than before the run, so that training begins at once. The key is
    the whole batch in its order: with the same padding the reference's arithmetic is the policy's,
    bit for bit.
    """

    def __init__(self, compute: Callable[[dict[str, Any]], LogProbs]) -> None:
        self._compute = compute
        self._kept: dict[tuple[int, ...], LogProbs] = {}

    def of(self, pair_ids: tuple[int, ...], batch: dict[str, Any], *, keep: bool) -> LogProbs:
        """Log-probs of the pairs in `batch`, on the device where they were computed.

        Args:
            keep: the batch comes again, in the same order.
        """
        if not keep:
            return self._compute(batch)
        if pair_ids not in self._kept:
            self._kept[pair_ids] = self._compute(batch)
        return self._kept[pair_ids]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
