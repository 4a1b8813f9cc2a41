"""Folders that are whole or absent, and tensor files whose errors are the system's."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dpo_trainer.errors import TrainerError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` when the body ends, and is on the disk then.

    Raises:
        OSError: the disk does not take it; no part of it is left behind.
    """
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        yield staging
        sync_tree(staging)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_unfinished(folder: Path, name: str) -> None:
    """Remove what killed processes left of folders whose names begin with `name`."""
    for path in folder.glob(f".{name}*"):
        if re.fullmatch(rf"\.{re.escape(name)}.*\.\d+", path.name):
            shutil.rmtree(path, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Force a folder and all below it to the disk, so that a rename does not overtake them."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: the disk does not take it.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        told = re.search(r"os error (\d+)", str(error))
        number = int(told[1]) if told else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        TrainerError: it is absent or damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainerError(f"{path}: cannot be read: {error}; remove its folder") from error
    return tensors


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
