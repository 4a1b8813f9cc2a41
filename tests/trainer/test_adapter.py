"""A trained adapter is taken as the profile says, and a file that cannot be used is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from peft import IA3Config, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from dpo_profiles.schema import Adapter
from dpo_trainer.errors import TrainerError
from dpo_trainer.model.adapter import POLICY, add_policy, save_adapter
from dpo_trainer.model.base import load_base

from .conftest import MakeProfile

SHAPE = Adapter(r=4, alpha=8.0, target_modules=("q_proj", "v_proj"))


@pytest.fixture
def base(model_folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model_folder)
    return model


@pytest.fixture
def trained(base: PreTrainedModel, model_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "trained"
    model = add_policy(base, SHAPE)
    save_adapter(model, POLICY, str(model_folder), folder)
    model.unload()
    return folder


def test_an_adapter_of_the_profiles_shape_is_taken(base: PreTrainedModel, trained: Path) -> None:
    shape = msgspec.structs.replace(SHAPE, path=str(trained), target_modules=("v_proj", "q_proj"))
    assert add_policy(base, shape).peft_config[POLICY].r == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"r": 16}, "adapter.r: the profile says 16, .* has 4"),
        ({"alpha": 16.0}, "adapter.alpha: the profile says 16.0, .* has 8.0"),
        ({"target_modules": ("q_proj",)}, r"adapter.target_modules: .*\['q_proj'\], .*'v_proj'\]"),
    ],
)
def test_an_adapter_of_another_shape_is_refused_with_both_values(
    base: PreTrainedModel, trained: Path, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(TrainerError, match=reason):
        add_policy(base, msgspec.structs.replace(SHAPE, path=str(trained), **change))


def test_an_adapter_that_is_no_lora_is_refused(base: PreTrainedModel, tmp_path: Path) -> None:
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[])
    other = get_peft_model(base, config)
    other.save_pretrained(tmp_path)
    other.unload()
    with pytest.raises(TrainerError, match="is a IA3 adapter; give a LoRA adapter"):
        add_policy(base, msgspec.structs.replace(SHAPE, path=str(tmp_path)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def test_a_cut_adapter_file_is_one_line(base: PreTrainedModel, trained: Path) -> None:
    cut(trained / "adapter_model.safetensors")
    with pytest.raises(TrainerError, match=r"adapter.path: .*: cannot be loaded") as failure:
        add_policy(base, msgspec.structs.replace(SHAPE, path=str(trained)))
    assert "\n" not in failure.value.format_message()


def test_a_cut_model_file_is_one_line(make_profile: MakeProfile, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(model_folder, folder)
    cut(folder / "model.safetensors")
    with pytest.raises(TrainerError, match=r"model.base: .*: cannot be loaded") as failure:
        load_base(folder, make_profile(), torch.float32, torch.device("cpu"))
    assert "\n" not in failure.value.format_message()
