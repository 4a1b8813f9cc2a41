"""vram_over_plan: a component, or NVML's figure, is above what was planned for it.

The plan is the promise that the run fits; what exceeds it is either something that the plan does not know of, or
something that was not meant to be there (a base that is not sharded, logits that are kept, another process's cache).
"""

from __future__ import annotations

from dpo_telemetry.budget import Budget, Held
from dpo_telemetry.figures import size
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.text import printable

CODE = "vram_over_plan"

SHARE = 0.05
"""Of the plan, by which a figure has to exceed it."""
LEAST_BYTES = 256 << 20
"""Below, nobody runs out of memory for it."""
NVML = "nvml"


def alerts(budget: Budget) -> list[HealthAlert]:
    """One alert a component, of the rank that is furthest above its plan."""
    worst: dict[str, tuple[int, Held]] = {}
    ranks: dict[str, int] = {}
    for rank in budget.ranks():
        figures = dict(rank.components)
        if rank.nvml is not None:
            figures[NVML] = rank.nvml
        for name, held in figures.items():
            if held.difference_bytes <= max(LEAST_BYTES, SHARE * held.planned_bytes):
                continue
            ranks[name] = ranks.get(name, 0) + 1
            if name not in worst or held.difference_bytes > worst[name][1].difference_bytes:
                worst[name] = (rank.rank, held)
    return [_alert(name, rank, held, ranks[name]) for name, (rank, held) in worst.items()]


def _alert(name: str, rank: int, held: Held, ranks: int) -> HealthAlert:
    others = f", the most of {ranks} ranks" if ranks > 1 else ""
    return HealthAlert(
        code=CODE,
        severity="warning",
        metric=printable(name),
        count=ranks,
        message=f"{printable(name)} of rank {rank} is {size(held.measured_bytes)}, {size(held.difference_bytes)} above what was"
        f" planned{others}",
        advice="See `dpo-daemon plan RUN` for all components; if the card is nearly full, lower micro_batch_pairs or"
        " max_length_tokens before it runs out.",
        evidence={"planned_bytes": held.planned_bytes, "measured_bytes": held.measured_bytes},
    )
