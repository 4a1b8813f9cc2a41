"""The same training, whoever runs it.

All four runs have the same seed, pairs, base and trained adapter, 5 steps of 4 pairs in float32
without dropout. One rank adds up four gradients; two ranks add up two each and average. Float32
rounds such sums by up to 2^-24 of the largest term, about 6e-8, so losses differ by about that
in each step. AdamW divides by the root of the second moment, which turns a rounding of a gradient
near zero into an update of up to the learning rate, so the difference may grow from step to step;
a wrong scale of the gradient, a batch in another order or a reference in another dtype is off by
1e-3 and more.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from dpo_telemetry import events

from .conftest import ENGINES, Ended

LOSS_TOLERANCE = 1e-5
"""Relative; measured 1.1e-6."""
MARGIN_TOLERANCE = 1e-5
"""Absolute, of margins up to 2; measured 1.2e-6."""
ADAPTER_COSINE = 1 - 1e-8
"""Of all weights' changes as one vector; measured 1 - 3e-13."""


@pytest.mark.parametrize("backend", ["single", *ENGINES])
def test_the_run_really_learns(learned: Callable[[str], Ended], backend: str) -> None:
    losses = learned(backend).metric("loss")
    assert losses[0] == pytest.approx(0.693147, abs=1e-6)
    assert losses[-1] < 0.5


@pytest.mark.parametrize("backend", ENGINES)
def test_losses_and_margins_are_those_of_one_process(learned: Callable[[str], Ended], backend: str) -> None:
    one, two = learned("single"), learned(backend)
    assert two.metric("loss") == pytest.approx(one.metric("loss"), rel=LOSS_TOLERANCE)
    for name in ("rewards/margins", "rewards/chosen", "logps/rejected", "grad_norm"):
        assert two.metric(name) == pytest.approx(one.metric(name), rel=LOSS_TOLERANCE, abs=MARGIN_TOLERANCE)
    assert two.metric("num_tokens") == one.metric("num_tokens")
    last = [ended.of(events.Eval)[-1].metrics for ended in (one, two)]
    for name in ("eval_loss", "eval_rewards/margins"):
        assert last[1][name] == pytest.approx(last[0][name], rel=LOSS_TOLERANCE, abs=MARGIN_TOLERANCE)


@pytest.mark.parametrize("backend", ENGINES)
def test_the_final_adapter_is_that_of_one_process(
    learned: Callable[[str], Ended], trained_adapter: object, backend: str
) -> None:
    begun = load_file(f"{trained_adapter}/adapter_model.safetensors")
    moved = []
    for ended in (learned("single"), learned(backend)):
        weights = load_file(ended.adapter())
        assert weights.keys() == begun.keys()
        moved.append(torch.cat([(weights[name] - begun[name]).flatten().double() for name in begun]))
    assert float(moved[0].abs().max()) > 1e-3, "trained by more than one learning rate"
    assert float(torch.cosine_similarity(moved[0], moved[1], dim=0)) > ADAPTER_COSINE
