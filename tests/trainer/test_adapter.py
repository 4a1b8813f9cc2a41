"""A file that cannot be loaded is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dpo_trainer.errors import TrainerError

from .conftest import MakeProfile, load_policy


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def test_a_cut_model_file_is_one_line(make_profile: MakeProfile, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(model_folder, folder)
    cut(folder / "model.safetensors")
    with pytest.raises(TrainerError, match=r"model.base: .*cannot be loaded") as failure:
        load_policy(folder, make_profile())
    assert "\n" not in failure.value.format_message()
