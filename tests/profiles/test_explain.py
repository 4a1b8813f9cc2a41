from __future__ import annotations

import re

import pytest

from dpo_profiles.errors import ProfileError
from dpo_profiles.load import load_profile, shipped_names
from dpo_profiles.plan import make_plan
from dpo_profiles.plan.explain import explain, formula_of, planned_workload
from dpo_profiles.plan.report import CACHE_FRAGMENTATION, COMPONENTS

JOBS = [
    *((name,) for name in shipped_names()),
    ("zero3", "train.gradient_checkpointing=false"),
    ("zero3", "optimizer.name=adamw_8bit", "quantization.double_quantization=false"),
    ("single", "model.attention=eager", "adapter.dropout=0", "eval.micro_batch_pairs=2"),
    ("fsdp2", "quantization.kind=none"),
    ("single", "engine.backend=ddp", "engine.gpus_per_node=2"),
    ("single", "model.base=mistralai/Mixtral-8x7B-v0.1", 'adapter.target_modules=["q_proj"]'),
]


def value_of(formula: str) -> float:
    """A formula's arithmetic, without the words before its numbers."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", formula).replace(" x ", " * ")
    words = re.sub(
        r"\b(?!max\(|min\()[A-Za-z][\w'-]*(?:[ ,]+(?!max\(|min\()[A-Za-z][\w'-]*)* (?=[\d(]|m(?:ax|in)\()",
        "",
        text,
    )
    return float(eval(words, {"__builtins__": {}, "max": max, "min": min}))


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
def test_each_part_of_a_plan_has_a_formula_that_gives_its_bytes(job: tuple[str, ...]) -> None:
    profile = load_profile(job[0], job[1:])
    workload = planned_workload(profile)
    for phase, parts in make_plan(profile).per_gpu[0].parts.items():
        for name, size in parts.items():
            formula = formula_of(workload, phase, name)
            assert formula.source
            if size:
                assert value_of(formula.text) == pytest.approx(size, rel=2e-3), (phase, name, formula.text)


@pytest.mark.parametrize("name", ["zero3", "demo"])
def test_what_is_explained_adds_up_to_the_component_in_each_phase(name: str) -> None:
    profile = load_profile(name)
    plan = make_plan(profile)
    for phase, parts in plan.per_gpu[0].phases.items():
        for component, size in parts.items():
            entries = explain(profile, plan, component)
            assert sum(entry.bytes for entry in entries if phase in entry.phases) == size


def test_cache_and_context_are_explained_by_both_ends() -> None:
    profile = load_profile("zero3")
    plan = make_plan(profile)
    for component in COMPONENTS[-2:]:
        low, high = explain(profile, plan, component)
        interval = getattr(plan.per_gpu[0], f"{component}_bytes")
        assert (low.bytes, high.bytes) == (interval.low, interval.high)
        assert value_of(low.formula) == pytest.approx(low.bytes, rel=1e-6)
        assert value_of(high.formula) == pytest.approx(high.bytes, rel=1e-6)
    assert CACHE_FRAGMENTATION in COMPONENTS[-2:]


def test_an_unknown_component_is_answered_with_the_names() -> None:
    profile = load_profile("demo")
    with pytest.raises(ProfileError, match=r"^--explain: 'weights' is no component; .*policy_weights, "):
        explain(profile, make_plan(profile), "weights")
