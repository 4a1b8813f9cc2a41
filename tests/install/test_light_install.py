"""Whoever only watches installs no training stack: `pip install .` is enough to replay."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SEED_LOG = REPOSITORY / "tests" / "data" / "seed-fsdp.log"
HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "deepspeed", "datasets", "pynvml")


@pytest.fixture(scope="module")
def light_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light") / "venv"
    venv.create(folder, with_pip=True)
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    subprocess.run(
        [*pip, "--constraint", REPOSITORY / "constraints.txt", REPOSITORY], check=True, timeout=300
    )
    return folder / "bin"


def test_a_light_install_replays_a_log_without_torch(light_bin: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [light_bin / "dpo-tui", "replay", "--headless", "--json", SEED_LOG],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    codes = {alert["code"] for alert in json.loads(done.stdout)["alerts"]}
    assert codes == {"nonfinite", "empty_completions"}


def test_a_light_install_holds_no_training_stack(light_bin: Path, tmp_path: Path) -> None:
    probe = f"import importlib.util as u; print([m for m in {HEAVY!r} if u.find_spec(m)])"
    done = subprocess.run(
        [light_bin / "python", "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_light_install_ships_profiles_and_pairs(light_bin: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [light_bin / "dpo-daemon", "profiles", "--json"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert {"demo", "zero3", "fsdp"} <= {profile["name"] for profile in json.loads(done.stdout)["profiles"]}


@pytest.mark.parametrize("module", ["dpo_tui.cli", "dpo_daemon.cli", "dpo_telemetry.reader.model"])
def test_watching_imports_no_training_stack(module: str) -> None:
    probe = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
