"""vram_imbalance: ranks of the same plan peak at different heights.

Shards are equal but for padding, and so are batches but for their lengths; one rank far above the others runs out
of memory first, and the rest of the cards stays empty. The usual reasons are a model that one rank loaded for all,
and evaluation or saving that gathers on rank 0.
"""

from __future__ import annotations

from dpo_telemetry.events import Memory
from dpo_telemetry.figures import size
from dpo_telemetry.health.alerts import HealthAlert

CODE = "vram_imbalance"

SHARE = 0.15
"""Of the highest peak, that the lowest has to be below it."""
LEAST_BYTES = 1 << 30
LEAST_STEPS = 5
"""Steps of every rank, so that one long batch is none."""


class VramImbalance:
    """Each rank's largest peak in training."""

    def __init__(self) -> None:
        self._peaks: dict[int, int] = {}
        self._steps: dict[int, int] = {}

    def feed(self, rank: int, memory: Memory) -> None:
        """Look at the next measurement of a rank."""
        if memory.phase == "train" and memory.step and memory.peak_allocated_bytes is not None:
            self._peaks[rank] = max(memory.peak_allocated_bytes, self._peaks.get(rank, 0))
            self._steps[rank] = self._steps.get(rank, 0) + 1

    def alerts(self) -> list[HealthAlert]:
        """At most one alert."""
        if len(self._peaks) < 2 or min(self._steps.values()) < LEAST_STEPS:
            return []
        high = max(self._peaks, key=lambda rank: self._peaks[rank])
        low = min(self._peaks, key=lambda rank: self._peaks[rank])
        most, least = self._peaks[high], self._peaks[low]
        if most - least < max(LEAST_BYTES, SHARE * most):
            return []
        return [
            HealthAlert(
                code=CODE,
                severity="warning",
                metric="peak_allocated_bytes",
                count=len(self._peaks),
                message=f"rank {high} peaks at {size(most)}, rank {low} at {size(least)}",
                advice="See that every rank loads only its shard and gets batches of like lengths; look at"
                f" `dpo-daemon plan RUN` for the component that rank {high} has more of.",
                evidence={"highest_bytes": most, "lowest_bytes": least},
            )
        ]
