"""Each way in which a run goes wrong silently is put in once; the self-test names it and stops the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dpo_telemetry import components, events

from .conftest import DEEPSPEED, SHARDING, WORLD, Ended, MakeProfile, Workshop


def assert_stopped(ended: Ended, code: str, words: str, ranks: int = 1) -> None:
    """Nothing was trained, and the alert and every rank's exit say why."""
    assert ended.codes == [1] * ranks, ended.log()
    assert ended.alerts() == [code]
    (alert,) = ended.of(events.Alert)
    assert words in alert.message
    assert (alert.severity, bool(alert.advice)) == ("critical", True)
    for rank in range(ranks):
        (exit_,) = ended.of(events.Exit, rank)
        assert (exit_.code, exit_.reason) == (1, f"{code} at step 0")
        assert ended.of(events.Step, rank) == []
    told = [p.message for p in ended.of(events.Phase) if p.name == "reference" and p.state == "progress"]
    assert words in told[-1]
    assert not ended.run.adapter_dir.exists()
    assert not list(ended.run.checkpoints_dir.iterdir())


ONE_PROCESS = [
    ("codes_altered", "base_corrupted", "1 of 14 4-bit layers do not hold what was loaded"),
    ("state_lost", "base_corrupted", "1 of 14 4-bit layers do not hold what was loaded"),
    ("layer_rounds", "base_corrupted", "gives other numbers than before it was sharded"),
    ("reference_changed", "reference_mismatch", "1 of 28 reference weights are not those"),
    ("policy_rounded", "reference_mismatch", "policy and reference differ by up to"),
    ("masters_rounded", "adapter_frozen", "masters are bfloat16, and adapter.master_dtype says float32"),
    ("weight_frozen", "adapter_frozen", "1 of 28 adapter weights would not be trained"),
    ("base_trainable", "base_corrupted", "1 parameters would be trained that are no part of the adapter"),
    ("not_a_number", "nonfinite", "are not all numbers"),
    ("completions_empty", "empty_completions", "has no tokens"),
    ("log_probs_rounded", "bf16_rounding", "log-probs are rounded"),
]


@pytest.mark.parametrize(("fault", "code", "words"), ONE_PROCESS, ids=[case[0] for case in ONE_PROCESS])
def test_a_fault_is_named_and_stops_the_run(
    workshop: Workshop, profile_of: MakeProfile, fault: str, code: str, words: str
) -> None:
    assert_stopped(workshop.go(workshop.new_run(profile_of("single")), 0, fault=fault), code, words)


RANKS = [
    ("deepspeed-zero3", "codes_altered", "base_corrupted", "do not hold what was loaded"),
    ("fsdp2", "codes_altered", "base_corrupted", "do not hold what was loaded"),
    ("deepspeed-zero3", "state_lost", "base_corrupted", "do not hold what was loaded"),
    ("fsdp2", "state_lost", "base_corrupted", "do not hold what was loaded"),
    ("deepspeed-zero3", "zero_is_off", "not_sharded", "base parameters are whole on this rank"),
    ("fsdp2", "codes_left_whole", "not_sharded", "14 of 27 base parameters are whole on this rank"),
    ("fsdp2", "nothing_is_sharded", "not_sharded", "27 of 27 base parameters are whole on this rank"),
    ("deepspeed-zero3", "policy_rounded", "reference_mismatch", "policy and reference differ by up to"),
    ("deepspeed-zero3", "last_ranks_completions_empty", "empty_completions", "has no tokens, so"),
    ("fsdp2", "last_ranks_completions_empty", "empty_completions", "has no tokens, so"),
    ("fsdp2", "reference_changed", "reference_mismatch", "reference weights are not those"),
]


@pytest.mark.parametrize(
    ("backend", "fault", "code", "words"), RANKS, ids=[f"{case[0]}-{case[1]}" for case in RANKS]
)
def test_a_fault_of_sharding_is_named_and_stops_every_rank(
    workshop: Workshop, profile_of: MakeProfile, backend: str, fault: str, code: str, words: str
) -> None:
    ended = workshop.go(workshop.new_run(profile_of(backend)), fault=fault)
    assert_stopped(ended, code, words, WORLD)


def plan_of(bytes_a_rank: int) -> bytes:
    ranks: list[Any] = [{"components": {components.POLICY_WEIGHTS: bytes_a_rank}}] * WORLD
    return json.dumps({"per_gpu": ranks}).encode()


BASE_BYTES = 176_384
"""All parameters of the base, as they are stored."""


@pytest.mark.parametrize("backend", SHARDING)
def test_more_bytes_than_planned_stop_the_run(
    workshop: Workshop, profile_of: MakeProfile, backend: str
) -> None:
    run = workshop.new_run(profile_of(backend), plan_of(45_000))
    assert_stopped(workshop.go(run), "not_sharded", "and the plan says 45,000", WORLD)


def test_parameters_that_deepspeed_keeps_gathered_are_counted_before_it_gathers_them(
    workshop: Workshop, profile_of: MakeProfile, tmp_path: Path
) -> None:
    settings = json.loads(json.dumps(DEEPSPEED))
    settings["zero_optimization"]["stage3_param_persistence_threshold"] = 1_000_000
    (tmp_path / "keeps.json").write_text(json.dumps(settings))
    profile = profile_of("deepspeed-zero3", engine={"deepspeed_file": str(tmp_path / "keeps.json")})
    run = workshop.new_run(profile, plan_of(BASE_BYTES // WORLD))
    assert_stopped(workshop.go(run), "not_sharded", "and the plan says 88,192", WORLD)
