"""How far two trainings of the same job are apart: plain arithmetic on what the runs left behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import harness

Tensors = Mapping[str, NDArray[np.floating[Any]]]

REFERENCE = "single"
COMPARED = ("deepspeed-zero3", "fsdp2")
GOALS = {"loss_rel_max": 0.005, "margin_abs_max": 1e-3, "adapter_cosine_min": 0.999, "loss_last": 0.5}


@dataclass(frozen=True)
class Trained:
    """What one run left: a value a step, and its final adapter by tensor name."""

    losses: tuple[float, ...]
    margins: tuple[float, ...]
    adapter: Tensors
    wall_s: float
    """From the start of the launcher to its end, loading included."""


def loss_rel_max(one: Trained, other: Trained) -> float:
    """Largest |difference of the losses| / loss of `other` over the steps, a fraction."""
    pairs = zip(one.losses, other.losses, strict=True)
    return _largest(abs(a - b) / abs(b) for a, b in pairs)


def margin_abs_max(one: Trained, other: Trained) -> float:
    """Largest |difference of rewards/margins| over the steps."""
    return _largest(abs(a - b) for a, b in zip(one.margins, other.margins, strict=True))


def cosine_min(one: Tensors, other: Tensors) -> float:
    """Smallest cosine over the tensors, a fraction.

    Raises:
        ValueError: the two do not hold the same tensors, or one of them is zero.
    """
    if one.keys() != other.keys():
        raise ValueError(f"not the same tensors: {', '.join(sorted(one.keys() ^ other.keys()))}")
    return -_largest(-_cosine(one[name], other[name]) for name in one)


def change(trained: Trained, start: Tensors) -> dict[str, NDArray[np.float64]]:
    """What training added to each tensor of the adapter that it started from."""
    return {name: value.astype(np.float64) - start[name] for name, value in trained.adapter.items()}


def figures(runs: Mapping[str, Trained], start: Tensors, *, suffix: str = "") -> dict[str, harness.Figure]:
    """The figures of one table; only those without a suffix have goals.

    Args:
        runs: by backend, `REFERENCE` and `COMPARED` among them.
        start: the adapter that all of them started from.
        suffix: added to the names.
    """
    zero3, fsdp2 = (runs[name] for name in COMPARED)
    others = [trained for name, trained in runs.items() if name != REFERENCE]
    reference = runs[REFERENCE]
    values = {
        "loss_rel_max": loss_rel_max(zero3, fsdp2),
        "margin_abs_max": margin_abs_max(zero3, fsdp2),
        "adapter_cosine_min": cosine_min(zero3.adapter, fsdp2.adapter),
        "change_cosine_min": cosine_min(change(zero3, start), change(fsdp2, start)),
        "loss_last": _largest(trained.losses[-1] for trained in runs.values()),
        "loss_lowest": -_largest(-loss for trained in runs.values() for loss in trained.losses),
        "start_cosine_min": -_largest(-cosine_min(trained.adapter, start) for trained in runs.values()),
        "loss_rel_max_single": _largest(loss_rel_max(trained, reference) for trained in others),
        "margin_abs_max_single": _largest(margin_abs_max(trained, reference) for trained in others),
        "adapter_cosine_min_single": -_largest(
            -cosine_min(trained.adapter, reference.adapter) for trained in others
        ),
    }
    goals: Mapping[str, float] = {} if suffix else GOALS
    return {
        name + suffix: {"value": _shown(name, value), "goal": goals.get(name), "peer": {}}
        for name, value in values.items()
    }


def table(runs: Mapping[str, Trained], start: Tensors) -> list[harness.Row]:
    """One row a run; differences are those to `REFERENCE`."""
    reference = runs[REFERENCE]
    return [
        {
            "engine": name,
            "steps": len(trained.losses),
            "first_loss": round(trained.losses[0], 6),
            "last_loss": round(trained.losses[-1], 6),
            "last_margin": round(trained.margins[-1], 6),
            "loss_rel_max": _shown("loss", loss_rel_max(trained, reference)),
            "margin_abs_max": _shown("margin", margin_abs_max(trained, reference)),
            "change_cosine_min": _shown(
                "cosine", cosine_min(change(trained, start), change(reference, start))
            ),
            "wall_s": round(trained.wall_s, 1),
        }
        for name, trained in runs.items()
    ]


def _cosine(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    if lengths == 0:
        raise ValueError("a tensor is zero, and has no direction to compare")
    return min(1.0, float(a @ b) / lengths)


def _largest(values: Iterable[float]) -> float:
    """The largest; NaN where one is, which Python's own `max` passes over."""
    return float(np.max(np.fromiter(values, dtype=np.float64)))


def _shown(name: str, value: float) -> float:
    """A cosine near 1 needs its decimals, and a difference its magnitude."""
    return round(value, 9) if "cosine" in name else float(f"{value:.3g}")
