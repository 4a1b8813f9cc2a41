"""What every reader of a foreign log gives back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from dpo_telemetry.series.columns import SeriesStore

StepSource = Literal["logged", "progress bar", "counted"]

SUMMARY_KEYS = ("train_runtime", "train_samples_per_second")
"""A row that has one of them sums a run up and is no step."""


@dataclass
class ForeignLog:
    """Rows of a log, training and evaluation apart."""

    format: str
    series: SeriesStore = field(default_factory=SeriesStore)
    step_source: StepSource = "counted"
    attempts: int = 1
    """1, and one more each time the steps start again from an earlier one."""
    lines_not_understood: int = 0
    beta: float | None = None
    loss_kind: str | None = None

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Add a row; metrics named `eval_...` make it one of evaluation."""
        evaluation = is_evaluation(metrics)
        if evaluation and "epoch" in metrics:
            metrics = {"eval_epoch" if name == "epoch" else name: value for name, value in metrics.items()}
        table = self.series.eval if evaluation else self.series.train
        newest = table.newest_step()
        if not evaluation and newest is not None and step < newest:
            self.attempts += 1
        table.append(step, metrics.items(), attempt=self.attempts)


def is_evaluation(metrics: Iterable[str]) -> bool:
    """Whether a row with these metrics is one of evaluation."""
    return any(name.startswith("eval_") for name in metrics)


def numbers(row: dict[Any, Any]) -> dict[str, float]:
    """The metrics of a row: numbers, and strings that mean one, under their names."""
    return dict(_numbers(row.items()))


def _numbers(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, float]]:
    for name, value in items:
        if not isinstance(name, str) or isinstance(value, bool):
            continue
        if isinstance(value, int | float | str):
            try:
                yield name, float(value)
            except (ValueError, OverflowError):
                continue


def as_step(value: object) -> int | None:
    """A step as a row gives it; None when it is no whole number."""
    if isinstance(value, int | float) and math.isfinite(value) and value == int(value) and abs(value) < 2**53:
        return int(value)
    return None
