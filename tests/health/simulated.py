"""DPO runs made from the mathematics: log-ratios in nats that drift, batches that scatter around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import Diagnosis
from dpo_telemetry.health.rule import Context
from dpo_telemetry.series.columns import Floats, Table

Row = dict[str, float]


def simulate(
    margins_nats: npt.NDArray[np.floating],
    *,
    chosen_nats: npt.NDArray[np.floating] | float = 0.0,
    beta: float = 0.1,
    pairs: int = 8,
    scatter_nats: float = 6.0,
    seed: int = 0,
    rate: Floats | None = None,
    changed: Mapping[str, npt.ArrayLike] | None = None,
) -> list[Row]:
    """Rows of a run whose mean margin at each step is beta x `margins_nats`.

    Args:
        margins_nats: mean difference of the log-ratios at each step, shape (n,); 0 at the first.
        chosen_nats: mean log-ratio of the chosen answers, a number or shape (n,).
        beta: factor of the reward.
        pairs: pairs a step.
        scatter_nats: standard deviation of a pair's margin once the policy has moved.
        seed: of the scatter.
        rate: learning rates, shape (n,); 5 steps of warm-up and then constant by default.
        changed: metrics that are other than the mathematics gives.
    """
    rng = np.random.default_rng(seed)
    n = len(margins_nats)
    moved = np.minimum(1.0, np.abs(margins_nats) / 2)[:, None]
    single = beta * (margins_nats[:, None] + moved * scatter_nats * rng.normal(size=(n, pairs)))
    margin, chosen = single.mean(axis=1), beta * np.broadcast_to(chosen_nats, n)
    columns: dict[str, Any] = {
        "loss": np.logaddexp(0, -single).mean(axis=1),
        "grad_norm": 40 * beta * (1 / (1 + np.exp(single))).mean(axis=1) * (1 + 0.1 * rng.random(n)),
        "learning_rate": 5e-6 * np.minimum(1, np.arange(n) / 5) if rate is None else rate,
        "rewards/chosen": chosen,
        "rewards/rejected": chosen - margin,
        "rewards/margins": margin,
        "rewards/accuracies": (single > 0).mean(axis=1),
        "logps/chosen": -211.37 + chosen / beta + 3 * rng.normal(size=n),
        "logps/rejected": -240.11 + (chosen - margin) / beta + 3 * rng.normal(size=n),
        "logits/chosen": rng.normal(size=n),
        "epoch": np.arange(1, n + 1) / 500,
    }
    for name, values in (changed or {}).items():
        columns[name] = np.broadcast_to(values, n)
    names = list(columns)
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def learning(steps: int = 120, reach: float = 12.0, pace: float = 60.0) -> Floats:
    """Margins that grow towards `reach` nats, the steps of the warm-up hardly at all."""
    at = np.maximum(np.arange(steps) - 3.0, 0.0)
    margins: Floats = reach * (1 - np.exp(-at / pace))
    return margins


def diagnosed(
    rows: Sequence[Row],
    evaluations: Mapping[int, Row] | None = None,
    context: Context | None = None,
    *,
    first_step: int = 1,
    every: int = 1,
) -> Diagnosis:
    """A log, diagnosed: rows at steps `first_step`, + `every`, ...; evaluations by their step."""
    diagnosis = Diagnosis(context or Context())
    train, evaluation = Table(), Table()
    for at, row in enumerate(rows):
        train.append(first_step + at * every, row.items())
    for step, row in (evaluations or {}).items():
        evaluation.append(step, [(f"eval_{name}", value) for name, value in row.items()])
    for table in (train, evaluation):
        diagnosis.feed(table.rows(table.effective_rows()))
    return diagnosis


def live(rows: Sequence[Row], *, every: int = 1, context: Context | None = None) -> Iterator[Diagnosis]:
    """The diagnosis after each row of a log, as a live run is looked at; rows are `every` steps apart."""
    table, diagnosis = Table(), Diagnosis(context or Context())
    for at, row in enumerate(rows):
        table.append(1 + at * every, row.items())
    order = table.effective_rows()
    for at in range(len(order)):
        diagnosis.feed(table.rows(order[at : at + 1]))
        yield diagnosis


def alarms(diagnosis: Diagnosis) -> list[str]:
    """Codes that are no mere information."""
    return [alert.code for alert in diagnosis.alerts() if alert.severity != "info"]


def alert(diagnosis: Diagnosis, code: str) -> HealthAlert:
    """The one alert of a code."""
    (found,) = [alert for alert in diagnosis.alerts() if alert.code == code]
    return found
