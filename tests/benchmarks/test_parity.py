from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import harness
from parity_figures import Tensors, Trained, cosine_min, figures, loss_rel_max, margin_abs_max, table
from parity_page import page

DOCUMENT = Path(__file__).parents[2] / "docs" / "parity.md"


def adapter(a: tuple[float, float] = (1.0, 0.0), b: tuple[float, float] = (0.0, 1.0)) -> Tensors:
    return {"a": np.array(a, dtype=np.float32), "b": np.array(b, dtype=np.float32)}


def trained(losses: tuple[float, ...] = (0.7, 0.4), margins: tuple[float, ...] = (0.0, 1.0)) -> Trained:
    return Trained(losses, margins, adapter(), 12.34)


START: Tensors = adapter((0.5, 0.5), (0.5, 0.5))
RUNS = {name: trained() for name in ("single", "ddp", "deepspeed-zero3", "fsdp2")}


def values(runs: dict[str, Trained], suffix: str = "") -> dict[str, float]:
    return {name: figure["value"] for name, figure in figures(runs, START, suffix=suffix).items()}


def test_the_loss_difference_is_a_fraction_of_the_loss_in_its_worst_step() -> None:
    assert loss_rel_max(trained((0.8, 0.2)), trained((0.81, 0.21))) == pytest.approx(0.01 / 0.21)


def test_the_margin_difference_is_absolute_and_from_the_worst_step() -> None:
    assert margin_abs_max(trained(margins=(0.5, -2.0)), trained(margins=(0.1, -2.1))) == pytest.approx(0.4)


def test_a_loss_that_is_not_a_number_is_not_passed_over() -> None:
    assert math.isnan(loss_rel_max(trained((0.7, math.nan, 0.4)), trained((0.7, 0.5, 0.4))))


def test_runs_of_different_length_are_not_compared() -> None:
    with pytest.raises(ValueError, match="longer"):
        loss_rel_max(trained((0.7,)), trained((0.7, 0.4)))


def test_the_cosine_is_the_one_of_the_tensor_that_agrees_least() -> None:
    assert cosine_min(adapter(), adapter(a=(3.0, 0.0), b=(1.0, 1.0))) == pytest.approx(math.sqrt(0.5))
    assert cosine_min(adapter(), adapter(a=(-1.0, 0.0))) == -1.0


def test_adapters_of_other_tensors_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not the same tensors: b"):
        cosine_min(adapter(), {"a": adapter()["a"]})


def test_a_tensor_of_zeros_is_not_taken_for_one_that_agrees() -> None:
    with pytest.raises(ValueError, match="zero"):
        cosine_min(adapter(), adapter(b=(0.0, 0.0)))


def test_runs_that_are_alike_differ_by_nothing() -> None:
    found = values(RUNS)
    assert found["loss_rel_max"] == found["margin_abs_max"] == found["loss_rel_max_single"] == 0.0
    assert found["adapter_cosine_min"] == found["change_cosine_min"] == 1.0
    assert found["loss_last"] == found["loss_lowest"] == 0.4
    assert found["start_cosine_min"] == pytest.approx(math.sqrt(0.5))


def test_the_headline_compares_the_two_sharded_engines_and_the_suffix_all_with_single() -> None:
    off = replace(trained((0.7, 0.44), (0.0, 1.5)), adapter=adapter(b=(1.0, 1.0)))
    found = values({**RUNS, "ddp": off})
    assert (found["loss_rel_max"], found["margin_abs_max"], found["adapter_cosine_min"]) == (0.0, 0.0, 1.0)
    assert found["loss_rel_max_single"] == pytest.approx(0.1)
    assert found["margin_abs_max_single"] == 0.5
    assert found["adapter_cosine_min_single"] == pytest.approx(math.sqrt(0.5))
    assert found["loss_last"] == 0.44
    found = values({**RUNS, "fsdp2": off})
    assert found["loss_rel_max"] == pytest.approx(0.04 / 0.44, rel=0.01)
    assert found["margin_abs_max"] == 0.5
    assert found["adapter_cosine_min"] == pytest.approx(math.sqrt(0.5))


def test_the_change_is_compared_without_what_all_started_from() -> None:
    opposite = {name: 2 * START[name] - value for name, value in trained().adapter.items()}
    found = values({**RUNS, "fsdp2": replace(trained(), adapter=opposite)})
    assert found["change_cosine_min"] == -1.0


def test_only_figures_without_a_suffix_have_goals() -> None:
    goals = {name: figure["goal"] for name, figure in figures(RUNS, START).items() if figure["goal"]}
    assert goals == {
        "loss_rel_max": 0.005, "margin_abs_max": 1e-3, "adapter_cosine_min": 0.999, "loss_last": 0.5,
    }  # fmt: skip
    assert all(figure["goal"] is None for figure in figures(RUNS, START, suffix="_bf16").values())
    assert "loss_rel_max_bf16" in figures(RUNS, START, suffix="_bf16")


def test_a_row_has_the_ends_of_its_run() -> None:
    rows = {row["engine"]: row for row in table({**RUNS, "ddp": trained((0.7, 0.44))}, START)}
    assert list(rows) == list(RUNS)
    assert (rows["ddp"]["first_loss"], rows["ddp"]["last_loss"], rows["ddp"]["last_margin"]) == (
        0.7,
        0.44,
        1.0,
    )
    assert rows["ddp"]["loss_rel_max"] == 0.1
    assert (rows["fsdp2"]["steps"], rows["fsdp2"]["wall_s"]) == (2, 12.3)


def test_the_page_has_the_recorded_numbers() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == page(harness.recorded("parity")), (
        "run: python benchmarks/parity.py --page > docs/parity.md"
    )
