"""`python -m dpo_trainer` as a process: what it says when the question is wrong, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo_profiles.schema import Profile
from dpo_telemetry import events
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_trainer import job
from dpo_trainer.errors import TrainerError

from .conftest import MakeProfile, read_events


def dpo_trainer(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dpo_trainer", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_a_whole_run_ends_with_0_and_an_adapter(
    make_profile: MakeProfile, new_run: Callable[[Profile], RunDirectory]
) -> None:
    run = new_run(make_profile(train={"max_steps": 1}))
    done = dpo_trainer(run.path, 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert (run.adapter_dir / "adapter_model.safetensors").is_file()
    assert any(line.startswith("{'loss'") for line in done.stdout.splitlines())


def test_a_data_set_that_is_not_there_ends_with_2_and_one_line(
    make_profile: MakeProfile, new_run: Callable[[Profile], RunDirectory], tmp_path: Path
) -> None:
    run = new_run(make_profile(data={"name": str(tmp_path / "gone.jsonl")}))
    done = dpo_trainer(run.path, 1)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: data.name: {tmp_path / 'gone.jsonl'}: there is no such file")
    (end,) = [event for event in read_events(run) if isinstance(event, events.Exit)]
    assert (end.code, end.role) == (2, "rank")
    assert "gone.jsonl" in end.reason


def test_a_folder_that_is_no_run_directory_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = dpo_trainer(tmp_path, 1)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "not a run directory" in done.stderr


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"base": "./no-such-model"}}, "model.base: ./no-such-model"),
        ({"model": {"compute_dtype": "float16"}}, "model.compute_dtype: float16"),
        ({"adapter": {"path": "./no-such-adapter"}}, "adapter.path: no-such-adapter"),
        ({"adapter": {"target_modules": ("nope",)}}, "adapter.target_modules: nope"),
        ({"loss": {"label_smoothing": 0.1}}, "loss.label_smoothing"),
        ({"engine": {"backend": "fsdp2"}}, "engine.backend: fsdp2"),
        ({"engine": {"gpus_per_node": 2}}, "engine.gpus_per_node: the profile says 2 ranks"),
        ({"data": {"max_length_tokens": 40}}, "longer than 40 tokens"),
        ({"data": {"heldout_pairs": 12}}, "data.heldout_pairs"),
    ],
)
def test_a_profile_that_cannot_be_run_is_one_line_naming_the_field(
    make_profile: MakeProfile,
    new_run: Callable[[Profile], RunDirectory],
    changes: dict[str, dict[str, Any]],
    reason: str,
) -> None:
    run = new_run(make_profile(**changes))
    with pytest.raises(TrainerError) as failure:
        job.run(run.path, 1)
    message = failure.value.format_message()
    assert reason in message
    assert "\n" not in message
    assert failure.value.exit_code == 2
