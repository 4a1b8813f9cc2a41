"""How fast a run goes: over its recent steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

from dpo_telemetry.events import Step
from dpo_telemetry.reader.steps import NEWEST_STEPS


class Pace:
    """Step time and throughput of the last `NEWEST_STEPS` steps."""

    def __init__(self) -> None:
        self._recent: deque[Step] = deque(maxlen=NEWEST_STEPS)

    def add(self, steps: Iterable[Step]) -> None:
        """Steps in the order in which they were made."""
        self._recent.extend(steps)

    @property
    def step_time_s(self) -> float | None:
        """Median time of a step, seconds."""
        times = [step.times_s["step"] for step in self._recent if "step" in step.times_s]
        return median(times) if times else None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of the steps over their time."""
        return self._rate([(step.tokens, step.times_s.get("step")) for step in self._recent])

    @property
    def pairs_per_s(self) -> float | None:
        """Pairs of the steps over their time."""
        return self._rate([(step.pairs, step.times_s.get("step")) for step in self._recent])

    @staticmethod
    def _rate(amounts: list[tuple[int | None, float | None]]) -> float | None:
        known = [(amount, time_s) for amount, time_s in amounts if amount is not None and time_s]
        total_s = sum(time_s for _, time_s in known)
        return sum(amount for amount, _ in known) / total_s if total_s else None
