"""vram_leak: what torch holds between steps grows, step after step.

Between two updates the same tensors stand there each time, so allocated bytes are a flat line; lengths of batches
move the peak and not what is left after it. A line that only grows ends with the card full.
"""

from __future__ import annotations

import itertools
from collections import deque

from dpo_telemetry.events import Memory
from dpo_telemetry.figures import size
from dpo_telemetry.health.alerts import HealthAlert

CODE = "vram_leak"

BLOCK_STEPS = 10
BLOCKS = 6
"""Blocks of steps whose smallest figures have to grow one after the other."""
LEAST_BYTES = 256 << 20


class VramLeak:
    """Smallest allocated bytes of blocks of steps, for each rank; the newest blocks only."""

    def __init__(self) -> None:
        self._ranks: dict[int, _Blocks] = {}
        self._found: dict[int, HealthAlert] = {}

    def feed(self, rank: int, memory: Memory) -> None:
        """Look at the next measurement of a rank."""
        if memory.phase != "train" or memory.step is None or memory.allocated_bytes is None:
            return
        blocks = self._ranks.setdefault(rank, _Blocks())
        if blocks.take(memory.step, memory.allocated_bytes) and rank not in self._found:
            self._found[rank] = _alert(rank, blocks)

    def alerts(self) -> list[HealthAlert]:
        """One alert, of the rank that was seen first."""
        return [next(iter(self._found.values()))] if self._found else []


class _Blocks:
    def __init__(self) -> None:
        self.smallest: deque[tuple[int, int]] = deque(maxlen=BLOCKS)
        """First step and smallest bytes of each whole block."""
        self._open: tuple[int, int, int] | None = None
        self._step = -1

    def take(self, step: int, allocated: int) -> bool:
        """Whether the newest blocks grow without an exception."""
        if step <= self._step:
            # Told again, or the run went back: what was before is another line.
            self.smallest.clear()
            self._open = None
        self._step = step
        first, least, count = self._open or (step, allocated, 0)
        self._open = (first, min(least, allocated), count + 1)
        if count + 1 < BLOCK_STEPS:
            return False
        self.smallest.append(self._open[:2])
        self._open = None
        figures = [least for _, least in self.smallest]
        grows = all(later > earlier for earlier, later in itertools.pairwise(figures))
        return len(figures) == BLOCKS and grows and figures[-1] - figures[0] >= LEAST_BYTES


def _alert(rank: int, blocks: _Blocks) -> HealthAlert:
    (first_step, first), (last_step, last) = blocks.smallest[0], blocks.smallest[-1]
    per_step = (last - first) / (last_step - first_step)
    return HealthAlert(
        code=CODE,
        severity="warning",
        metric="allocated_bytes",
        step=first_step,
        last_step=last_step,
        count=BLOCKS * BLOCK_STEPS,
        message=f"what rank {rank} holds between steps grew from {size(first)} to {size(last)} from step {first_step}"
        f" to {last_step}, {size(round(per_step))} a step, and never shrank",
        advice="Look for tensors that are kept with their graph: losses or outputs collected in a list, hooks that"
        " hold activations. A restart from the newest checkpoint gives the memory back.",
        evidence={"bytes_per_step": per_step, "first_bytes": first, "last_bytes": last},
    )
