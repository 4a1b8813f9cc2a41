"""What a run costs: GPU-hours so far and to the end, at the price of its profile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dpo_telemetry.reader.attempt import AttemptView
from dpo_telemetry.reader.model import RunModel

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """In the currency of the profile."""

    currency: str
    spent: float
    """All attempts, from the start of their rank 0 to the last sign of it."""
    to_end: float | None
    """What the steps still to come cost at the recent pace; None where that is not known or over."""

    @property
    def total(self) -> float | None:
        """What the run will have cost."""
        return None if self.to_end is None else self.spent + self.to_end


def take_cost(model: RunModel) -> Cost | None:
    """None without a price, or where no GPU is used.

    Each rank has one GPU, which is paid for from the attempt's start until it was last heard of.
    """
    attempt = model.attempt
    price = _price(attempt) if attempt is not None else None
    if attempt is None or price is None:
        return None
    per_gpu_hour, currency = price
    spent = 0.0
    gpus = 0
    for view in model.attempts.values():
        gpus = _gpus(view)
        if view.start is not None:
            spent += gpus * max(0.0, _last_seen_s(model, view) - view.start.t) / HOUR_S * per_gpu_hour
    if not spent and not gpus:
        return None
    over = bool(attempt.host_exits) or attempt.exit is not None
    eta_s = model.eta_s
    to_end = None if over or eta_s is None else gpus * eta_s / HOUR_S * per_gpu_hour
    return Cost(currency, spent, to_end)


def _price(attempt: AttemptView) -> tuple[float, str] | None:
    """Price and currency as the resolved profile has them; None for what is no price."""
    section: Any = attempt.profile.get("cost")
    if not isinstance(section, dict):
        return None
    price, currency = section.get("per_gpu_hour"), section.get("currency", "USD")
    if not isinstance(price, int | float) or not math.isfinite(price) or price <= 0:
        return None
    return float(price), currency if isinstance(currency, str) else ""


def _gpus(attempt: AttemptView) -> int:
    start = attempt.start
    if start is None or start.device.startswith("cpu") or not start.device:
        return 0
    return start.world_size or 1


def _last_seen_s(model: RunModel, attempt: AttemptView) -> float:
    seen = [p.last_seen_s for p in model.processes.values() if p.attempt == attempt.number and p.rank == 0]
    return max(seen, default=0.0)
