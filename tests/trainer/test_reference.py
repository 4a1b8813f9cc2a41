"""The frozen reference is the policy that training starts from, bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dpo_profiles.schema import Adapter, Model, Profile
from dpo_telemetry import events
from dpo_trainer import engine, job
from dpo_trainer.dpo.reference import ReferenceLogProbs
from dpo_trainer.model.adapter import (
    POLICY,
    adapter_pairs,
    adapter_weights,
    add_policy,
    make_equal,
    save_adapter,
)

from .conftest import MakeProfile, TrainRun


@pytest.fixture(scope="session")
def sft_adapter(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter: both factors differ from zero, on no coarse grid."""
    shape = Adapter(r=4, alpha=8, dropout=0.2)
    model = add_policy(AutoModelForCausalLM.from_pretrained(model_folder), shape, None)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.1
    folder = tmp_path_factory.mktemp("sft")
    weights = adapter_weights(model, POLICY, engine.choose(Profile(name="x", model=Model(base="x"))))
    save_adapter(weights, model.peft_config[POLICY], str(model_folder), folder)
    return folder


def start_from(adapter: Path | None, **changes: Any) -> dict[str, Any]:
    """The profile's adapter section, of the shape that the trained adapter has."""
    return {"path": str(adapter) if adapter else "", "r": 4, "alpha": 8.0, **changes}


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("trained", [False, True], ids=["new adapter", "trained adapter"])
@pytest.mark.parametrize("pairs", [1, 3])
def test_first_step_has_margin_zero_and_loss_ln_2(
    make_profile: MakeProfile,
    train: TrainRun,
    sft_adapter: Path,
    compute_dtype: str,
    trained: bool,
    pairs: int,
) -> None:
    profile = make_profile(
        model={"compute_dtype": compute_dtype},
        adapter=start_from(sft_adapter if trained else None, dropout=0.0),
        train={"micro_batch_pairs": pairs, "max_steps": 1},
    )
    ended = train(profile)
    assert ended.code == 0
    assert ended.alerts() == []
    assert ended.metric("rewards/margins") == [0.0]
    assert ended.metric("rewards/chosen") == [0.0]
    assert ended.metric("loss") == [pytest.approx(math.log(2), abs=1e-7)]
    evaluations = ended.of(events.Eval)
    assert evaluations[0].metrics["eval_rewards/margins"] == 0.0
    assert evaluations[-1].metrics["eval_rewards/margins"] != 0.0


def test_the_reference_never_sees_dropout_and_the_policy_does(
    make_profile: MakeProfile, train: TrainRun, sft_adapter: Path
) -> None:
    profile = make_profile(adapter=start_from(sft_adapter, dropout=0.3), train={"max_steps": 1})
    ended = train(profile)
    assert ended.alerts() == [], "without dropout both agree, so the self-check is content"
    assert ended.metric("rewards/margins") != [0.0]
    assert ended.of(events.Eval)[0].metrics["eval_rewards/margins"] == 0.0


def leave_as_trl_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy rounded to bfloat16, the reference not."""
    original = make_equal

    def rounded(model: Any, dtype: torch.dtype) -> dict[str, int]:
        prints = original(model, dtype)
        for policy, _ in adapter_pairs(model).values():
            policy.data = policy.data.to(torch.bfloat16).to(dtype)
        return prints

    monkeypatch.setattr(job, "make_equal", rounded)


def test_what_trl_leaves_behind_is_reported_as_a_mismatch(
    make_profile: MakeProfile, train: TrainRun, sft_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_as_trl_does(monkeypatch)
    profile = make_profile(
        adapter=start_from(sft_adapter, dropout=0.0), alerts={"reference_mismatch": "warn"}
    )
    ended = train(profile)
    (alert,) = [alert for alert in ended.of(events.Alert) if alert.code == "reference_mismatch"]
    assert alert.severity == "critical"
    assert ended.code == 0


def test_a_mismatch_stops_the_run_where_the_profile_says_so(
    make_profile: MakeProfile, train: TrainRun, sft_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_as_trl_does(monkeypatch)
    profile = make_profile(
        adapter=start_from(sft_adapter, dropout=0.0), alerts={"reference_mismatch": "stop"}
    )
    ended = train(profile)
    assert ended.code == 1
    assert ended.of(events.Step) == []
    (end,) = ended.of(events.Exit)
    assert end.code == 1
    assert "reference_mismatch" in end.reason


def test_a_bfloat16_adapter_without_masters_is_reported_as_frozen(
    make_profile: MakeProfile, train: TrainRun, sft_adapter: Path
) -> None:
    profile = make_profile(
        adapter=start_from(sft_adapter, master_dtype="bfloat16"),
        optimizer={"learning_rate": 5e-6},
        alerts={"adapter_frozen": "stop"},
    )
    ended = train(profile)
    assert ended.alerts() == ["adapter_frozen"]
    assert ended.code == 1


def test_float32_masters_learn_at_the_same_rate(
    make_profile: MakeProfile, train: TrainRun, sft_adapter: Path
) -> None:
    profile = make_profile(
        model={"compute_dtype": "bfloat16"},
        adapter=start_from(sft_adapter),
        optimizer={"learning_rate": 5e-6},
    )
    assert train(profile).alerts() == []


def test_only_batches_that_come_again_are_kept() -> None:
    computed: list[str] = []

    def compute(batch: dict[str, Any]) -> Any:
        computed.append(batch["name"])
        return torch.zeros(1), torch.zeros(1)

    reference = ReferenceLogProbs(compute)
    for _ in range(2):
        reference.of((1,), {"name": "train"}, keep=False)
        reference.of((2,), {"name": "eval"}, keep=True)
    assert computed == ["train", "eval", "train"]
