"""An adapter, a tokenizer or a number of ranks that does not fit is refused before weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from dpo_profiles.schema import Adapter
from dpo_trainer.errors import Refused, TrainerError
from dpo_trainer.model import reach
from dpo_trainer.model.adapter_check import check_adapter
from dpo_trainer.model.adapter_files import find_adapter
from dpo_trainer.model.preflight import check_ranks, check_tokenizer

from .conftest import MakeProfile, byte_tokenizer

SHAPE = Adapter(r=4, alpha=8.0, target_modules=("q_proj", "v_proj"))
TENSOR = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"


@pytest.fixture
def config(model_folder: Path) -> PretrainedConfig:
    found: PretrainedConfig = AutoConfig.from_pretrained(model_folder)
    return found


@pytest.fixture
def trained(config: PretrainedConfig, tmp_path: Path) -> Path:
    return train(config, tmp_path / "trained")


def train(config: PretrainedConfig, folder: Path, **changes: Any) -> Path:
    """An adapter of the profile's shape, but for the changes, in PEFT's own files."""
    asked = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(**(asked | changes)))
    model.peft_config["default"].base_model_name_or_path = "somebody/else"
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def check(folder: Path, config: PretrainedConfig, **changes: Any) -> None:
    adapter = msgspec.structs.replace(SHAPE, path=str(folder), **changes)
    check_adapter(find_adapter(adapter), adapter, config, "tiny")


def refusal(folder: Path, config: PretrainedConfig, **changes: Any) -> str:
    with pytest.raises(TrainerError) as failure:
        check(folder, config, **changes)
    assert failure.value.exit_code == 1
    return one_line(failure.value)


def one_line(error: TrainerError) -> str:
    message = error.format_message()
    assert "\n" not in message
    return message


def edit(folder: Path, **fields: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_an_adapter_of_the_profile_and_its_base_is_taken_whatever_its_base_is_called(
    trained: Path, config: PretrainedConfig
) -> None:
    check(trained, config)
    check(trained, config, target_modules=("v_proj", "q_proj"))
    check(trained, config, target_modules=("self_attn.q_proj", "v_proj"))


def test_a_pattern_of_layers_is_what_it_has_hit(config: PretrainedConfig, tmp_path: Path) -> None:
    folder = train(config, tmp_path / "pattern", target_modules=r".*\.(q|v)_proj")
    check(folder, config)
    assert "['q_proj', 'v_proj']" in refusal(folder, config, target_modules=("q_proj",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"r": 16}, "adapter.r: the profile says 16, the adapter in "),
        ({"alpha": 16.0}, "adapter.alpha: the profile says 16.0"),
        ({"target_modules": ("q_proj",)}, "adapter.target_modules: the profile says ['q_proj']"),
        (
            {"target_modules": ("q_proj", "nope")},
            "adapter.target_modules: the profile says ['nope', 'q_proj']",
        ),
    ],
)
def test_another_shape_is_refused_with_both_values(
    trained: Path, config: PretrainedConfig, change: dict[str, Any], told: str
) -> None:
    message = refusal(trained, config, **change)
    assert told in message
    assert message.endswith("set it to the adapter's")


@pytest.mark.parametrize(
    "option",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2}},
        {"modules_to_save": ["lm_head"]},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"layers_to_transform": [0]},
    ],
)
def test_what_a_profile_cannot_say_is_refused_by_name(
    trained: Path, config: PretrainedConfig, option: dict[str, Any]
) -> None:
    edit(trained, **option)
    assert f"has {next(iter(option))} = " in refusal(trained, config)


def test_an_adapter_that_took_weights_from_its_base_is_refused(
    trained: Path, config: PretrainedConfig
) -> None:
    edit(trained, init_lora_weights="pissa_niter_16")
    assert "changes the base's weights" in refusal(trained, config)


def test_an_adapter_for_another_task_is_refused(trained: Path, config: PretrainedConfig) -> None:
    edit(trained, task_type="SEQ_CLS")
    assert "was trained for SEQ_CLS" in refusal(trained, config)


def test_another_kind_of_adapter_is_refused(config: PretrainedConfig, tmp_path: Path) -> None:
    kind = IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[])
    get_peft_model(AutoModelForCausalLM.from_config(config), kind).save_pretrained(str(tmp_path))
    assert "is a IA3 adapter; give a LoRA adapter" in refusal(tmp_path, config)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"hidden_size": 128}, "layers.0.self_attn.q_proj.lora_A.weight is [4, 128], and must be [4, 64]"),
        (
            {"num_key_value_heads": 4},
            "layers.0.self_attn.v_proj.lora_B.weight is [64, 4], and must be [32, 4]",
        ),
        ({"num_hidden_layers": 1}, "lacks 4 of 8 tensors, the first is base_model.model.model.layers.1."),
        ({"num_hidden_layers": 3}, "has 4 tensors for layers that the base has not, the first is base_model"),
    ],
)
def test_an_adapter_of_another_base_is_refused_with_the_tensor(
    config: PretrainedConfig, tmp_path: Path, sizes: dict[str, int], told: str
) -> None:
    other = type(config).from_dict(config.to_dict() | sizes)
    message = refusal(train(other, tmp_path / "other"), config)
    assert told in message
    assert "tiny; it was trained on somebody/else" in message


def test_tensors_of_another_rank_than_the_adapter_says_are_refused(
    config: PretrainedConfig, tmp_path: Path
) -> None:
    folder = train(config, tmp_path / "other", r=2)
    edit(folder, r=4)
    assert "lora_A.weight is [2, 64], and must be [4, 64]" in refusal(folder, config)


@pytest.mark.parametrize("change", ["lacking", "foreign"])
def test_a_tensor_too_few_or_of_no_lora_layer_is_refused(
    trained: Path, config: PretrainedConfig, change: str
) -> None:
    file = trained / "adapter_model.safetensors"
    tensors = load_file(file)
    if change == "lacking":
        del tensors[TENSOR]
    else:
        tensors["base_model.model.lm_head.weight"] = torch.zeros(2, 2)
    save_file(tensors, file)
    told = (
        f"the first is {TENSOR}"
        if change == "lacking"
        else "lm_head.weight, which is no part of a LoRA layer"
    )
    assert told in refusal(trained, config)


def test_a_pickle_is_refused_unread_and_the_mend_is_told(trained: Path, config: PretrainedConfig) -> None:
    (trained / "adapter_model.safetensors").unlink()
    (trained / "adapter_model.bin").write_bytes(b"not even a pickle")
    message = refusal(trained, config)
    assert "adapter_model.bin: is a pickle" in message
    assert "writes safetensors" in message


def spoil(folder: Path, how: str) -> None:
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    match how:
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:-50])
        case "cut header":
            weights.write_bytes(weights.read_bytes()[:20])
        case "empty weights":
            weights.write_bytes(b"")
        case "huge header":
            weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])
        case "no weights":
            weights.unlink()
        case "cut config":
            config.write_text(config.read_text()[:100])
        case "binary config":
            config.write_bytes(b"\x80\x81\x82")
        case "list config":
            config.write_text("[]")
        case "no config":
            config.unlink()
        case "no folder":
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    "how",
    [
        "cut weights", "cut header", "empty weights", "huge header", "no weights", "cut config", "binary config",
        "list config", "no config", "no folder",
    ],
)  # fmt: skip
def test_a_file_that_is_invalid_or_absent_is_a_wrong_question(
    trained: Path, config: PretrainedConfig, how: str
) -> None:
    spoil(trained, how)
    with pytest.raises(TrainerError) as failure:
        check(trained, config)
    assert failure.value.exit_code == 2
    assert one_line(failure.value).startswith(f"adapter.path: {trained}")


def test_an_adapter_of_the_hub_is_looked_for_in_its_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: Path
) -> None:
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    adapter = msgspec.structs.replace(SHAPE, path="nobody/adapter")
    try:
        with pytest.raises(
            TrainerError, match=r"adapter.path: nobody/adapter: the hub does not answer"
        ) as failure:
            find_adapter(adapter)
        assert failure.value.exit_code == 2
        repository = cache / "models--nobody--adapter"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("1" * 40)
        shutil.copytree(trained, repository / "snapshots" / ("1" * 40))
        assert find_adapter(adapter) == repository / "snapshots" / ("1" * 40)
    finally:
        reach.set_offline(False)


def test_a_padding_token_that_the_tokenizer_has_not_is_refused_with_near_ones(
    make_profile: MakeProfile,
) -> None:
    check_tokenizer(byte_tokenizer(), make_profile(model={"pad_token": "<|im_end|>"}))
    check_tokenizer(byte_tokenizer(), make_profile(model={"pad_token": ""}))
    with pytest.raises(Refused, match=r"model.pad_token: <\|im_ned\|>: .* nearest to it are <\|im_end\|>"):
        check_tokenizer(byte_tokenizer(), make_profile(model={"pad_token": "<|im_ned|>"}))


@pytest.mark.parametrize("backend", ["deepspeed-zero3", "fsdp", "fsdp2"])
def test_more_ranks_than_layers_are_refused_where_layers_are_sharded(backend: str) -> None:
    check_ranks(4, 4, 100, backend)
    with pytest.raises(Refused, match=r"engine.gpus_per_node: 5 ranks, and the base has 4 decoder layers"):
        check_ranks(5, 4, 100, backend)


def test_more_ranks_than_layers_are_fine_where_each_holds_the_whole() -> None:
    check_ranks(5, 4, 100, "ddp")


def test_more_ranks_than_pairs_are_refused() -> None:
    check_ranks(4, 80, 8, "ddp", micro_batch_pairs=2)
    with pytest.raises(Refused, match=r"4 ranks of 2 pairs each, and there are 7 training pairs"):
        check_ranks(4, 80, 7, "ddp", micro_batch_pairs=2)
