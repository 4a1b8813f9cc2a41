"""What one batch of pairs came to, pair by pair, left on the device until somebody reads it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpo_trainer.engine import Ranks


@dataclass(frozen=True)
class BatchResult:
    """One forward pass. Tensors are [pairs], float32, detached; log-probs are sums in nats."""

    pair_ids: tuple[int, ...]
    loss: torch.Tensor
    """Scalar: the mean over the batch's pairs."""
    chosen_logps: torch.Tensor
    rejected_logps: torch.Tensor
    reference_chosen_logps: torch.Tensor
    reference_rejected_logps: torch.Tensor
    rank: int = 0
    """Whose batch it is, once the ranks' results are together."""

    def on_cpu(self) -> BatchResult:
        """The same, off the device."""
        moved: dict[str, Any] = {
            each.name: value.cpu()
            for each in fields(self)
            if isinstance(value := getattr(self, each.name), torch.Tensor)
        }
        return replace(self, **moved)

    def nonfinite_ids(self) -> list[int]:
        """Pairs with a log-prob that is NaN or infinite; all of them if only the loss is."""
        policy = (self.chosen_logps, self.rejected_logps)
        reference = (self.reference_chosen_logps, self.reference_rejected_logps)
        columns = torch.stack((*policy, *reference))
        finite = torch.isfinite(columns).all(dim=0).tolist()
        bad = [pair for pair, good in zip(self.pair_ids, finite, strict=True) if not good]
        if not bad and not bool(torch.isfinite(self.loss)):
            return list(self.pair_ids)
        return bad


@dataclass
class Results:
    """The batches of a step, or of an evaluation."""

    batches: list[BatchResult] = field(default_factory=list)

    def mean_loss(self) -> float:
        """Mean over pairs, whatever the sizes of the batches."""
        total = sum(float(batch.loss) * len(batch.pair_ids) for batch in self.batches)
        return total / self.pairs

    @property
    def pairs(self) -> int:
        """Pairs in all batches."""
        return sum(len(batch.pair_ids) for batch in self.batches)

    def over(self, ranks: Ranks) -> Results:
        """The batches of all ranks, on the CPU; to be called on all ranks."""
        if ranks.world_size == 1:
            return self
        gathered = ranks.gather([batch.on_cpu() for batch in self.batches])
        return Results(
            [replace(batch, rank=rank) for rank, batches in enumerate(gathered) for batch in batches]
        )

    def behind_nonfinite(self) -> dict[int, list[int]]:
        """Pairs behind a value that is not finite, by rank; all of them where no pair shows one."""
        found = self._by_rank([(batch.rank, batch.nonfinite_ids()) for batch in self.batches])
        return found or self._by_rank([(batch.rank, list(batch.pair_ids)) for batch in self.batches])

    @staticmethod
    def _by_rank(parts: list[tuple[int, list[int]]]) -> dict[int, list[int]]:
        found: dict[int, set[int]] = {}
        for rank, ids in parts:
            if ids:
                found.setdefault(rank, set()).update(ids)
        return {rank: sorted(ids) for rank, ids in sorted(found.items())}

    def rewards(self, beta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rewards of the chosen and of the rejected answers, [pairs] each: beta x log-ratio."""
        chosen = [beta * (b.chosen_logps - b.reference_chosen_logps) for b in self.batches]
        rejected = [beta * (b.rejected_logps - b.reference_rejected_logps) for b in self.batches]
        return _column(chosen), _column(rejected)


def _column(tensors: list[torch.Tensor]) -> NDArray[np.float64]:
    return torch.cat(tensors).double().cpu().numpy()
