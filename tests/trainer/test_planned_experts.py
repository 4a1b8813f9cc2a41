"""What the trainer quantises and adapts of a mixture of experts is what the plan counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import MixtralConfig, PretrainedConfig, Qwen2MoeConfig, Qwen3MoeConfig

from dpo_profiles.errors import ProfileError
from dpo_profiles.plan.find import find_architecture
from dpo_profiles.plan.phases import Estimate, estimate
from dpo_profiles.plan.tensors import trainable_parameters
from dpo_profiles.plan.workload import Workload, workload_of
from dpo_profiles.schema import Profile
from dpo_trainer.model.adapter import POLICY, add_policy
from dpo_trainer.model.nf4 import layers_4bit
from dpo_trainer.model.skeleton import build_skeleton

from .conftest import MakeProfile

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
QWEN: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
MIXTURES: dict[str, PretrainedConfig] = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, architectures=["MixtralForCausalLM"]),
    "qwen2_moe": Qwen2MoeConfig(
        **SIZES, **QWEN, shared_expert_intermediate_size=128, architectures=["Qwen2MoeForCausalLM"]
    ),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, **QWEN, head_dim=16, architectures=["Qwen3MoeForCausalLM"]),
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def planned(profile: Profile, config: PretrainedConfig, folder: Path) -> tuple[Workload, Estimate]:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    workload = workload_of(profile, find_architecture(str(folder), "test"))
    return workload, estimate(workload)


def loaded(profile: Profile, config: PretrainedConfig) -> PeftModel:
    skeleton = build_skeleton(config, profile, torch.float32, torch.device("cpu"))
    return add_policy(skeleton, profile.adapter, None)


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("targets", [ATTENTION, [*ATTENTION, "gate_proj", "up_proj", "down_proj"]])
def test_experts_and_routers_are_counted_as_they_are_held(
    make_profile: MakeProfile, tmp_path: Path, kind: str, targets: list[str]
) -> None:
    config = MIXTURES[kind]
    profile = make_profile(adapter={"target_modules": tuple(targets)})
    if "gate_proj" in targets and kind != "qwen2_moe":
        with pytest.raises(ProfileError, match="has no layer 'gate_proj'"):
            planned(profile, config, tmp_path / kind)
        return
    workload, counted = planned(profile, config, tmp_path / kind)
    model = loaded(profile, config)
    codes = {f"{name}.weight" for name in layers_4bit(model)}
    sizes = {
        # Before they are filled, layers have their whole shape; two weights share a byte.
        "codes": sum(p.numel() // 2 for n, p in model.named_parameters() if n in codes),
        "unquantized": sum(
            p.numel() * 4 for n, p in model.named_parameters() if n not in codes and "lora_" not in n
        ),
        "adapter": sum(p.numel() for n, p in model.named_parameters() if f".{POLICY}." in n),
    }
    parts = counted.parts["step"]
    assert parts["policy_weights.codes"] == sizes["codes"]
    assert parts["policy_weights.unquantized"] == sizes["unquantized"]
    assert trainable_parameters(workload) == sizes["adapter"]
    experts = [p.numel() for n, p in model.named_parameters() if ".experts." in n]
    assert sum(experts) * 4 > sizes["unquantized"] / 2, "most of a mixture is not quantised"
