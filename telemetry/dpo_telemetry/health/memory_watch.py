"""The rules that look at memory instead of metrics, over one attempt."""

from __future__ import annotations

from dpo_telemetry.budget import Budget
from dpo_telemetry.events import Memory
from dpo_telemetry.health import vram_imbalance, vram_leak, vram_over_plan
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.vram_imbalance import VramImbalance
from dpo_telemetry.health.vram_leak import VramLeak

MEMORY_RULES = (vram_over_plan.CODE, vram_leak.CODE, vram_imbalance.CODE)


class MemoryWatch:
    """Feeds measurements to the rules, and looks at the budget that they are held against."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._leak = VramLeak()
        self._imbalance = VramImbalance()
        self._said: tuple[int, list[HealthAlert]] = (0, [])

    def feed(self, rank: int, memory: Memory) -> None:
        """Look at the next measurement of a rank."""
        self._leak.feed(rank, memory)
        self._imbalance.feed(rank, memory)

    def alerts(self) -> list[HealthAlert]:
        """What all measurements so far show; costs nothing while none is new."""
        revision, said = self._said
        if revision != self._budget.revision:
            said = [*vram_over_plan.alerts(self._budget), *self._leak.alerts(), *self._imbalance.alerts()]
            self._said = (self._budget.revision, said)
        return list(said)
