"""Held-out rewards: means over pairs, and how sure the mean margin is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95


def bootstrap_interval(
    values: NDArray[np.float64], seed: int, *, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` [n] (Efron 1979).

    NaN on both sides when a value is not finite.
    """
    if not np.isfinite(values).all():
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    # Row by row: 10,000 resamples of a large held-out split would not fit into memory at once.
    means = np.array(
        [values[generator.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def reward_metrics(chosen: NDArray[np.float64], rejected: NDArray[np.float64], seed: int) -> dict[str, float]:
    """Evaluation metrics of rewards [pairs]: means, accuracy, and the interval of the mean margin."""
    margins = chosen - rejected
    low, high = bootstrap_interval(margins, seed)
    return {
        "eval_rewards/chosen": float(chosen.mean()),
        "eval_rewards/rejected": float(rejected.mean()),
        "eval_rewards/accuracies": float((margins > 0).mean()),
        "eval_rewards/margins": float(margins.mean()),
        "eval_rewards/margins_low": low,
        "eval_rewards/margins_high": high,
    }
