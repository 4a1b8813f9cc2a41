"""What the keeper publishes of plan against measurement: each rank when its figures changed."""

from __future__ import annotations

from collections.abc import Iterator

from dpo_telemetry.budget import RankBudget
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.wire.messages import MAX_BUDGET_RANKS, Budget


class Budgets:
    """Remembers what was published."""

    def __init__(self) -> None:
        self._seen = (0, 0)
        self._published: dict[int, RankBudget] = {}

    def changed(self, model: RunModel) -> Iterator[Budget]:
        """Messages with the ranks whose figures are other than those published last."""
        attempt = model.attempt
        if attempt is None or (attempt.number, attempt.budget.revision) == self._seen:
            return
        if attempt.number != self._seen[0]:
            self._published.clear()
        self._seen = (attempt.number, attempt.budget.revision)
        found = [held for held in attempt.budget.ranks() if self._published.get(held.rank) != held]
        self._published.update((held.rank, held) for held in found)
        for start in range(0, len(found), MAX_BUDGET_RANKS):
            yield Budget(attempt=attempt.number, ranks=found[start : start + MAX_BUDGET_RANKS])
