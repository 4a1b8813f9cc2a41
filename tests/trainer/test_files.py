"""Folders and tensor files that are whole, absent, or refused in one line."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpo_trainer import files
from dpo_trainer.checkpoint import Checkpoints
from dpo_trainer.errors import TrainerError


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let the system refuse longer files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_tensors_is_the_systems_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with largest_file(1000), pytest.raises(OSError, match="File too large") as failure:
        files.save_tensors({"a": torch.zeros(10_000)}, path)
    assert failure.value.filename == str(path)


def test_a_cut_tensor_file_is_one_line_naming_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.save_tensors({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(TrainerError, match=r"a.safetensors: cannot be read") as failure:
        files.load_tensors(path)
    assert "\n" not in failure.value.format_message()


def test_a_folder_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "old").touch()
    with files.whole_folder(target) as folder:
        files.save_tensors({"a": torch.ones(2)}, folder / "new")
        assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in target.iterdir()] == ["new"]
    assert torch.equal(load_file(target / "new")["a"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_fails_leaves_the_old_one_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "old").touch()
    with (
        largest_file(1000),
        pytest.raises(OSError, match="File too large"),
        files.whole_folder(target) as folder,
    ):
        files.save_tensors({"a": torch.zeros(10_000)}, folder / "new")
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_checkpoints_are_steps_alone_and_leftovers_go(tmp_path: Path) -> None:
    for name in ("step-00010", "step-00005", "step-00005.bak", ".step-00011.4711", "notes"):
        (tmp_path / name).mkdir()
    checkpoints = Checkpoints(tmp_path, "base", keep_last=0)
    assert [path.name for path in checkpoints.all()] == ["step-00005", "step-00010"]
    checkpoints.remove_unfinished()
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-00010", "step-00005", "step-00005.bak", "notes",
    }  # fmt: skip
