"""A base that is read layer by layer is the one that the library's own loader makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config, Qwen2ForCausalLM, set_seed

from dpo_profiles.schema import Profile
from dpo_trainer import engine
from dpo_trainer.model.adapter import add_policy
from dpo_trainer.model.fill import Loaded, fill
from dpo_trainer.model.nf4 import keep_codes_in_place, layers_4bit, quantisation_state, state_tensors
from dpo_trainer.model.skeleton import build_skeleton, read_config

from ..conftest import MakeProfile


def save_model(folder: Path, *, tied: bool, shard_size: str = "40KB") -> Path:
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    set_seed(3)
    model = Qwen2ForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            # Biases and norms start as zeros and ones, and a loader that forgets them would not show.
            torch.nn.init.normal_(parameter.data, mean=1.0, std=0.1)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder


def stream(folder: Path, profile: Profile) -> tuple[PeftModel, Loaded]:
    single = engine.choose(profile)
    skeleton = build_skeleton(read_config(folder, "tiny"), profile, single.compute_dtype, single.device)
    model = add_policy(skeleton, profile.adapter, None)
    return model.eval(), fill(model, folder, profile, single, lambda done, total, message: None)


def stock(folder: Path, **options: Any) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    keep_codes_in_place(model)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(40)[None] * 7 % 300).logits
    return found


def plain_name(name: str) -> str:
    return name.replace(".base_layer", "")


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("storage", ["uint8", "bfloat16"])
@pytest.mark.parametrize("double", [False, True], ids=["single-quant", "double-quant"])
def test_codes_states_and_logits_are_the_librarys(
    make_profile: MakeProfile, tmp_path: Path, double: bool, storage: str, tied: bool
) -> None:
    folder = save_model(tmp_path / "model", tied=tied)
    assert len(list(folder.glob("model-*.safetensors"))) > 2, "files with an index"
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_quant_storage=getattr(torch, storage),
        bnb_4bit_compute_dtype=torch.float32,
    )
    expected = stock(folder, quantization_config=quantization, device_map={"": "cpu"})
    model, loaded = stream(
        folder, make_profile(quantization={"double_quantization": double, "storage_dtype": storage})
    )
    assert loaded.streamed
    ours = {plain_name(name): layer for name, layer in layers_4bit(model.get_base_model()).items()}
    theirs = layers_4bit(expected)
    assert ours.keys() == theirs.keys() == loaded.codes.keys()
    assert len(ours) == 14
    for name, layer in theirs.items():
        assert_same_layer(ours[name], layer)
    assert torch.equal(logits(model), logits(expected))


def assert_same_layer(ours: Linear4bit, theirs: Linear4bit) -> None:
    assert ours.weight.dtype == theirs.weight.dtype
    assert torch.equal(ours.weight.data.view(torch.uint8), theirs.weight.data.view(torch.uint8))
    mine, other = quantisation_state(ours), quantisation_state(theirs)
    for field in ("shape", "dtype", "blocksize", "quant_type", "nested"):
        assert getattr(mine, field) == getattr(other, field), field
    pairs = list(zip(state_tensors(mine), state_tensors(other), strict=True))
    assert len(pairs) == (5 if mine.nested else 2)
    assert all(torch.equal(left, right) for left, right in pairs)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_an_unquantised_base_is_the_librarys(make_profile: MakeProfile, tmp_path: Path, tied: bool) -> None:
    folder = save_model(tmp_path / "model", tied=tied, shard_size="1GB")
    expected = stock(folder)
    model, loaded = stream(folder, make_profile(quantization={"kind": "none"}))
    assert loaded.streamed
    assert (loaded.codes, loaded.outputs) == ({}, {})
    base = model.get_base_model()
    ours = {plain_name(name): value for name, value in base.state_dict().items() if ".lora_" not in name}
    assert all(torch.equal(ours[name], value) for name, value in expected.state_dict().items())
    assert (base.lm_head.weight is base.model.embed_tokens.weight) == tied
    assert torch.equal(logits(model), logits(expected))


def test_files_in_other_names_go_through_the_librarys_loader(
    make_profile: MakeProfile, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", tied=True, shard_size="1GB")
    path = folder / "model.safetensors"
    expected = logits(stock(folder))
    weights = {name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    model, loaded = stream(folder, make_profile(quantization={"kind": "none"}))
    assert not loaded.streamed
    assert torch.equal(logits(model), expected)
