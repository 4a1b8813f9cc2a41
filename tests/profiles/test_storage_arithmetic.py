"""Formulas against figures that were measured or published."""

from __future__ import annotations

import pytest

from dpo_profiles.plan.nf4 import code_bytes, state_bytes
from dpo_profiles.plan.sharding import Parameter, Sharding


def test_codes_take_half_a_byte_a_weight() -> None:
    assert code_bytes(576 * 1536) == 442_368
    assert code_bytes(3) == 2


def test_nf4_takes_four_and_a_half_bits_and_4_127_with_double_quantisation() -> None:
    weights = 8192 * 29_568
    plain = 8 * (code_bytes(weights) + state_bytes(weights, double_quantization=False)) / weights
    nested = 8 * (code_bytes(weights) + state_bytes(weights, double_quantization=True)) / weights
    assert plain == pytest.approx(4.5, abs=1e-4)
    assert nested == pytest.approx(4.127, abs=1e-3)


def test_scales_are_those_that_bitsandbytes_makes() -> None:
    scales, nested_scales, tables = 13_824, 54, 16 * 4 + 256 * 4 + 4
    assert state_bytes(576 * 1536, double_quantization=True) == scales + 4 * nested_scales + tables
    assert state_bytes(576 * 1536, double_quantization=False) == 4 * scales + 16 * 4


def test_an_uneven_parameter_is_padded() -> None:
    parameter = Parameter(10, 3, 2)
    assert Sharding(backend="single", world_size=1).rank_bytes(parameter) == 60
    assert Sharding(backend="deepspeed-zero3", world_size=4).rank_bytes(parameter) == 8 * 2
    assert Sharding(backend="fsdp2", world_size=4).rank_bytes(parameter) == 3 * 3 * 2


def test_zero3_keeps_a_small_parameter_whole_beside_its_shard() -> None:
    zero3 = Sharding(backend="deepspeed-zero3", world_size=4, persistence_elements=32)
    assert zero3.rank_bytes(Parameter(8, 4, 2)) == 8 * 2 + 32 * 2
    assert zero3.rank_bytes(Parameter(11, 3, 2)) == 9 * 2
