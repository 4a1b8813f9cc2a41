"""GPUs through the real nvidia-ml-py; below it stands a small library that the test compiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("nvml_stub.c")
LOOK = """
import msgspec, sys
from dpo_daemon.nvml import Nvml
nvml = Nvml()
sys.stdout.write(msgspec.json.encode(list(nvml.sample("node-1"))).decode())
nvml.close()
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", target, SOURCE,
         "-Wl,-soname,libnvidia-ml.so.1"],
        check=True,
    )  # fmt: skip
    return folder


def look(library_folder: Path, **variables: str) -> list[dict[str, Any]]:
    """The loader reads LD_LIBRARY_PATH when a process starts, so each look is one."""
    result = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, "LD_LIBRARY_PATH": str(library_folder), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    gpus: list[dict[str, Any]] = json.loads(result.stdout)
    return gpus


@pytest.mark.system("gcc")
def test_a_healthy_gpu_is_told_in_full(library: Path) -> None:
    gpu = look(library)[0]
    assert gpu["host"] == "node-1"
    assert gpu["name"] == "NVIDIA H100 80GB HBM3"
    assert gpu["uuid"].startswith("GPU-")
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"]) == (85_520_809_984, 41_000_000_000)
    assert (gpu["utilisation_percent"], gpu["temperature_c"]) == (97.0, 64.0)


@pytest.mark.system("gcc")
def test_a_process_whose_memory_the_driver_does_not_tell_is_left_out(library: Path) -> None:
    assert look(library)[0]["process_bytes"] == {"4711": 40_000_000_000}


@pytest.mark.system("gcc")
def test_what_an_old_driver_does_not_have_is_absent(library: Path) -> None:
    assert "power_w" not in look(library)[0]


@pytest.mark.system("gcc")
def test_what_the_card_does_not_support_is_absent_and_the_rest_is_told(library: Path) -> None:
    gpu = look(library, STUB_NO_MEMORY="1")[0]
    assert "memory_total_bytes" not in gpu
    assert gpu["temperature_c"] == 64.0


@pytest.mark.system("gcc")
def test_a_gpu_that_fell_off_the_bus_is_named_lost_and_hides_no_other(library: Path) -> None:
    gpus = look(library)
    assert [gpu["index"] for gpu in gpus] == [0, 1]
    assert "lost" in gpus[1]["error"].lower()
    assert "memory_total_bytes" not in gpus[1]


def test_without_the_library_there_are_no_gpus(tmp_path: Path) -> None:
    """A file that is no library stands for none, also on a machine that has a driver."""
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    assert look(tmp_path) == []
