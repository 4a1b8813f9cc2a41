"""Parameter counts by arithmetic, against the published ones and against the library's own models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dpo_profiles.errors import PlanUnavailableError
from dpo_profiles.load import load_profile
from dpo_profiles.plan.config import ModelConfig
from dpo_profiles.plan.families import FAMILIES, architecture_of
from dpo_profiles.plan.find import KNOWN_MODELS, find_architecture, known_models, read_config
from dpo_profiles.plan.make import make_plan

PUBLISHED = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "Llama-2-70b": 68_976_648_192,
    "Meta-Llama-3-8B": 8_030_261_248,
    "Meta-Llama-3-70B": 70_553_706_496,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "TinyLlama-1.1B-v1.0": 1_100_048_384,
    "Yi-6B": 6_061_035_520,
    "Yi-9B": 8_829_407_232,
    "Yi-34B": 34_388_917_248,
    "SmolLM-135M": 134_515_008,
    "SmolLM-360M": 361_821_120,
    "SmolLM-1.7B": 1_711_376_384,
    "CodeLlama-7b": 6_738_546_688,
    "CodeLlama-13b": 13_016_028_160,
    "CodeLlama-34b": 33_743_970_304,
    "deepseek-llm-7b": 6_910_365_696,
    "deepseek-llm-67b": 67_425_001_472,
    "deepseek-coder-1.3b": 1_346_471_936,
    "deepseek-coder-6.7b": 6_740_512_768,
    "deepseek-coder-33b": 33_342_991_360,
    "SOLAR-10.7B-v1.0": 10_731_524_096,
    "open_llama_3b": 3_426_473_600,
    "Falcon3-3B": 3_227_655_168,
    "Falcon3-7B": 7_455_550_464,
    "Falcon3-10B": 10_305_653_760,
    "Falcon3-1B": 1_669_408_768,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "OpenHermes-2.5-Mistral-7B": 7_241_748_480,
    "Ministral-8B-2410": 8_019_808_256,
    "Mistral-Nemo-2407": 12_247_782_400,
    "Mistral-Small-2409": 22_247_282_688,
    "Mistral-Small-24B-2501": 23_572_403_200,
    "Mistral-Large-2407": 122_610_069_504,
    "Qwen1.5-0.5B": 463_987_712,
    "Qwen1.5-1.8B": 1_836_828_672,
    "Qwen1.5-4B": 3_950_369_280,
    "Qwen1.5-7B": 7_721_324_544,
    "Qwen1.5-14B": 14_167_290_880,
    "Qwen1.5-32B": 32_512_218_112,
    "Qwen1.5-72B": 72_287_920_128,
    "Qwen1.5-110B": 111_209_914_368,
    "CodeQwen1.5-7B": 7_250_284_544,
    "Qwen2-0.5B": 494_032_768,
    "Qwen2-1.5B": 1_543_714_304,
    "DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Qwen2-72B": 72_706_203_648,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "phi-1": 1_418_270_720,
    "phi-2": 2_779_683_840,
    "Phi-3-mini": 3_821_079_552,
    "Phi-3-medium": 13_960_238_080,
    "phi-4": 14_659_507_200,
    "Phi-4-mini": 3_836_021_760,
    "Mixtral-8x7B-v0.1": 46_702_792_704,
    "Mixtral-8x22B-v0.1": 140_630_071_296,
    "Qwen1.5-MoE-A2.7B": 14_315_784_192,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen-1_8B": 1_836_828_672,
    "Qwen-7B": 7_721_324_544,
    "Qwen-14B": 14_167_290_880,
    "Qwen-72B": 72_287_920_128,
}
"""Of the checkpoints on the hub, tied heads counted once."""
SMALL: Mapping[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"head_dim": 24},
    "qwen2": {},
    "qwen3": {"head_dim": 24},
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32},
    "gemma3_text": {"head_dim": 32},
    "phi": {"qk_layernorm": True},
    "phi3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 40,
        "shared_expert_intermediate_size": 72,
        "decoder_sparse_step": 2,
    },
    "qwen3_moe": {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 40,
        "mlp_only_layers": [1],
        "head_dim": 24,
    },
}
"""What a small config has besides the sizes that all share; Qwen (1) is not in the library."""
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "pad_token_id": 0,
}


def counted(config: dict[str, Any]) -> int:
    return architecture_of("model", msgspec.convert(config, ModelConfig, strict=False)).parameters


def built(config: dict[str, Any]) -> int:
    """Parameters of the library's own model, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    said = AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(said)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_known_models_parameters_are_the_published_number(name: str) -> None:
    assert find_architecture(name, "test").parameters == PUBLISHED[name]


@pytest.mark.train
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", SMALL)
def test_each_family_is_counted_as_the_library_builds_it(family: str, tied: bool) -> None:
    config = {"model_type": family, **SIZES, **SMALL[family], "tie_word_embeddings": tied}
    assert counted(config) == built(config)


def test_every_family_is_tried_against_the_library_or_against_published_numbers() -> None:
    assert set(FAMILIES) == {*SMALL, "qwen"}


@pytest.mark.train
@pytest.mark.parametrize(
    "name",
    [
        "Meta-Llama-3-70B",
        "Mistral-Nemo-2407",
        "Qwen1.5-110B",
        "Qwen3-32B",
        "gemma-2-27b",
        "gemma-3-1b",
        "phi-2",
        "Phi-3-medium",
        "Mixtral-8x7B-v0.1",
        "Qwen1.5-MoE-A2.7B",
        "Qwen3-30B-A3B",
    ],
)
def test_a_full_size_config_is_counted_as_the_library_builds_it(name: str) -> None:
    config = msgspec.json.decode(KNOWN_MODELS.read_bytes())[name]
    assert counted(config) == built({**config, "pad_token_id": 0})


def test_every_shipped_config_has_an_architecture() -> None:
    for name in known_models():
        model = find_architecture(name, "test")
        assert 0.1e9 < model.parameters < 150e9
        assert sum(linear.weights * linear.count for linear in model.linears) < model.parameters


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("someone/Qwen2.5-72B-Instruct", "Qwen2-72B"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "Mistral-7B-v0.1"),
        ("NousResearch/Llama-2-70b-chat-hf", "Llama-2-70b"),
        ("microsoft/Phi-3-mini-128k-instruct", "Phi-3-mini"),
        ("unsloth/gemma-2-9b-it-bnb-4bit", "gemma-2-9b"),
        ("01-ai/Yi-34B-200K", "Yi-34B"),
        ("Qwen/Qwen3-8B-Base", "Qwen3-8B"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "TinyLlama-1.1B-v1.0"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "Qwen3-30B-A3B"),
    ],
)
def test_fine_tunes_and_copies_are_found_by_their_name(name: str, same_as: str) -> None:
    assert find_architecture(name, "test").parameters == PUBLISHED[same_as]


def test_a_name_that_is_nearly_known_is_not_taken_for_it() -> None:
    with pytest.raises(PlanUnavailableError, match=r"take a known one such as .*qwen2\.5-72b"):
        find_architecture("Qwen/Qwen2.5-73B-Instruct", "test")


def test_a_72b_adapter_has_210_million_parameters_and_842_mb_on_disk() -> None:
    plan = make_plan(load_profile("zero3"))
    assert plan.model.parameters == 72_706_203_648
    assert plan.model.trainable_parameters == 210_534_400
    assert round(plan.model.trainable_parameters * 4 / 1e6) == 842


def test_a_target_that_ends_several_paths_means_all_of_them() -> None:
    model = find_architecture("Qwen-7B", "test")
    assert [linear.name for linear in model.targets("c_proj")] == ["attn.c_proj", "mlp.c_proj"]
    assert [linear.name for linear in model.targets("w1")] == ["mlp.w1"]
    assert not model.targets("proj")


def test_the_text_part_of_a_config_for_images_too_is_read(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", **SIZES}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    assert read_config(tmp_path / "config.json").model_type == "gemma3_text"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "hidden_size: 64 does not divide by"),
        ({"num_key_value_heads": 3}, "num_attention_heads: 4 does not divide by num_key_value_heads 3"),
        ({"vocab_size": -1}, "vocab_size: is -1"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(tmp_path: Path, changes: dict[str, int], expected: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **SIZES, **changes}))
    with pytest.raises(PlanUnavailableError, match=expected):
        read_config(tmp_path / "config.json")


def test_a_mixture_is_counted_by_either_name_of_its_experts_and_refused_without(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = {"model_type": "qwen3_moe", **SIZES, **SMALL["qwen3_moe"]}
    path.write_text(json.dumps(config))
    first = architecture_of("model", read_config(path)).parameters
    config["num_local_experts"] = config.pop("num_experts")
    path.write_text(json.dumps(config))
    assert architecture_of("model", read_config(path)).parameters == first
    del config["num_local_experts"]
    path.write_text(json.dumps(config))
    with pytest.raises(PlanUnavailableError, match="a mixture needs both"):
        read_config(path)
