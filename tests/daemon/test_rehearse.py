"""`dpo-daemon rehearse`: each check holds what it says it holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dpo_daemon.rehearse import adapter, findings
from dpo_daemon.rehearse.derive import on_these_ranks, ranks_here, with_stand_ins
from dpo_daemon.rehearse.prepare import Prepared
from dpo_daemon.rehearse.record import Record
from dpo_profiles.errors import ProfileError
from dpo_profiles.load import load_profile
from dpo_telemetry import events
from dpo_telemetry.rundir.find import list_runs

from .conftest import Home

Eventually = Callable[..., Any]
STEPS = {"STANDIN_STEPS": "2"}


def rehearse(home: Home, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of a rehearsal of the stand-in."""
    result = home.daemon(
        "rehearse", "--profile", home.profile, "--json", *arguments, **{**STEPS, **variables}
    )
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)


def failed(answer: dict[str, Any]) -> list[str]:
    return [check["name"] for check in answer["checks"] if not check["ok"]]


def test_a_rehearsal_that_goes_well_shows_all_and_leaves_nothing(home: Home) -> None:
    code, answer = rehearse(home, STANDIN_SAVES="")
    assert (code, failed(answer), answer["ok"]) == (0, [], True)
    assert [check["name"] for check in answer["checks"]] == [
        "preparation", "launch", "self-test: sharding", "steps", "evaluation", "checkpoint", "resume",
        "same curve", "adapter", "alerts",
    ]  # fmt: skip
    assert (answer["profile"], answer["backend"], answer["ranks"]) == ("tiny", "single", 1)
    assert (answer["device"], answer["run"]) == ("cpu", "")
    assert answer["notes"] == ["a random model stands in for nobody/tiny-model", answer["notes"][-1]]
    assert "cannot show" in answer["notes"][-1]
    assert list_runs(home.runs_dir) == []
    assert home.processes() == []


@pytest.mark.parametrize(
    ("variables", "checks"),
    [
        ({"STANDIN_SAVES": "no self-test"}, "self-test"),
        ({"STANDIN_SAVES": "no evaluation"}, "evaluation"),
        ({"STANDIN_SAVES": "no checkpoint"}, "checkpoint"),
        ({"STANDIN_SAVES": "other curve"}, "same curve"),
        ({"STANDIN_SAVES": "other adapter"}, "adapter"),
        ({"STANDIN_SAVES": "empty adapter"}, "adapter"),
        ({"STANDIN_SAVES": "alert"}, "alerts"),
        ({"STANDIN_SAVES": "", "STANDIN_NAN": "2"}, "steps, alerts"),
        ({"STANDIN_SAVES": "", "STANDIN_STEPS": "1"}, "steps, evaluation, checkpoint"),
        ({"STANDIN_SAVES": "", "STANDIN_FAIL": "1"}, "launch"),
        ({"STANDIN_UNPREPARED": "1"}, "preparation"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else value,
)
def test_what_goes_wrong_is_named_and_kept(home: Home, variables: dict[str, str], checks: str) -> None:
    code, answer = rehearse(home, **variables)
    assert (code, answer["ok"]) == (1, False)
    assert failed(answer) == checks.split(", ")
    (run,) = list_runs(home.runs_dir)
    assert answer["run"] == str(run.path)
    assert "rehearsal-tiny" in run.name


def test_a_profile_whose_parts_cannot_be_read_is_a_wrong_question(home: Home) -> None:
    result = home.daemon("rehearse", "--profile", home.profile, STANDIN_UNPREPARED="2")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: data.name: no such data set; name another\n"
    assert list_runs(home.runs_dir) == []


def test_what_is_kept_is_the_whole_rehearsal(home: Home) -> None:
    result = home.daemon(
        "rehearse", "--profile", home.profile, "--keep", "--runs-dir", home.path / "kept",
        STANDIN_SAVES="", **STEPS,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    (run,) = list_runs(home.path / "kept")
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny: single, 1 rank on cpu"
    assert lines[-2:] == ["the rehearsal went well", f"its run is kept in {run.path}"]
    assert [attempt.number for attempt in run.attempts()] == [1, 2]
    assert (run.path / "rehearsal" / "first" / "step-00002").is_dir()


def test_an_attempt_that_comes_to_no_end_is_ended(home: Home) -> None:
    code, answer = rehearse(home, "--limit", "2", STANDIN_SAVES="", STANDIN_STEP_S="600", STANDIN_DEAF="1")
    assert (code, failed(answer)) == (1, ["launch"])
    assert (
        "came to no end in time (--limit) and was ended; attempt 1: training" in answer["checks"][1]["text"]
    )
    assert home.processes() == []


def test_an_interrupted_rehearsal_ends_its_job_and_cleans_up(home: Home, eventually: Eventually) -> None:
    command = [sys.executable, "-m", "dpo_daemon", "rehearse", "--profile", str(home.profile)]
    variables = {"STANDIN_SAVES": "", "STANDIN_STEP_S": "600", "STANDIN_STEPS": "2"}
    with subprocess.Popen(command, env={**os.environ, **variables}, cwd=home.path) as process:
        eventually(
            lambda: any(run.attempt(1).log_file(0).exists() for run in list_runs(home.runs_dir)), "the job"
        )
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    assert home.processes() == []
    assert list_runs(home.runs_dir) == []


def test_the_rehearsed_profile_is_the_profile_where_it_can_be(tmp_path: Path) -> None:
    original = load_profile("zero3")
    prepared = Prepared(str(tmp_path / "model"), str(tmp_path / "pairs.jsonl"), str(tmp_path / "a"), [])
    found = with_stand_ins(on_these_ranks(original, 2), prepared)
    assert (found.name, found.engine.nodes, found.engine.gpus_per_node) == ("rehearsal-zero3", 1, 2)
    assert (found.model.base, found.model.revision) == (prepared.model, "")
    assert (found.adapter.path, found.data.name) == (prepared.adapter, prepared.data)
    assert (found.data.split, found.data.revision) == ("train", "")
    assert (found.train.max_steps, found.eval.every_steps) == (2, 1)
    assert (found.save.every_steps, found.save.keep_last) == (1, 0)
    assert set(msgspec.structs.asdict(found.alerts).values()) == {"stop"}
    assert found.engine.deepspeed_file == original.engine.deepspeed_file
    for section in ("quantization", "loss", "optimizer"):
        assert getattr(found, section) == getattr(original, section)
    assert found.schedule == msgspec.structs.replace(original.schedule, warmup_ratio=0.0)
    assert found.train == msgspec.structs.replace(original.train, max_steps=2)


def test_something_is_held_out_to_be_evaluated_on() -> None:
    original = load_profile("demo", ["data.heldout_pairs=0", "eval.every_steps=0"])
    prepared = Prepared("m", "d", "", [])
    assert with_stand_ins(on_these_ranks(original, 1), prepared).data.heldout_pairs > 0


@pytest.mark.parametrize(
    ("profile", "gpus", "ranks"), [("demo", 4, 1), ("zero3", 0, 2), ("zero3", 1, 1), ("zero3", 4, 4)]
)
def test_ranks_are_what_is_here(profile: str, gpus: int, ranks: int) -> None:
    assert ranks_here(load_profile(profile), gpus) == ranks


def test_an_engine_file_for_another_number_of_ranks_is_refused_with_the_mend(tmp_path: Path) -> None:
    original = load_profile("zero3")
    file = tmp_path / "ds.json"
    table = json.loads(Path(original.engine.deepspeed_file).read_bytes()) | {"train_batch_size": 128}
    file.write_text(json.dumps(table))
    profile = msgspec.structs.replace(
        original, engine=msgspec.structs.replace(original.engine, deepspeed_file=str(file))
    )
    assert on_these_ranks(profile, 8).engine.gpus_per_node == 8
    with pytest.raises(ProfileError, match=r"train_batch_size 128 .*--ranks"):
        on_these_ranks(profile, 2)


def write_adapter(
    folder: Path, tensors: dict[str, list[int]], *, cut: int = 0, config: str = '{"r": 4}'
) -> Path:
    """An adapter of zeros."""
    folder.mkdir()
    (folder / adapter.CONFIG).write_text(config)
    header, end = {}, 0
    for name, shape in tensors.items():
        size_bytes = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size_bytes]}
        end += size_bytes
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(end)
    (folder / adapter.WEIGHTS).write_bytes(data[: len(data) - cut])
    return folder


WHOLE = {"q.lora_A.weight": [4, 6], "q.lora_B.weight": [6, 4]}


@pytest.mark.parametrize(
    ("tensors", "options", "says"),
    [
        (WHOLE, {}, ""),
        ({**WHOLE, "k.lora_B.weight": [0]}, {}, "1 of 3 tensors are empty, k.lora_B.weight"),
        ({**WHOLE, "k.lora_A.weight": [2, 6]}, {}, "a part of a tensor"),
        ({**WHOLE, "k.lora_B.weight": [24]}, {}, "a part of a tensor"),
        ({}, {}, "holds no tensor"),
        (WHOLE, {"cut": 8}, "its header speaks of"),
        (WHOLE, {"cut": 10_000}, "cannot be read"),
        (WHOLE, {"config": "{"}, "cannot be read"),
        (WHOLE, {"config": '{"r": 8}'}, "is not of an adapter with r = 4"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_told_from_one_that_can(
    tmp_path: Path, tensors: dict[str, list[int]], options: dict[str, Any], says: str
) -> None:
    problem = adapter.problem_with(write_adapter(tmp_path / "a", tensors, **options), 4)
    assert says in problem
    assert bool(problem) == bool(says)


def record_of(device: str, loss: float) -> Record:
    start = events.Start(
        **events.stamp(), role="rank", host="h", pid=1, boot_id="b", process_started=0.0, device=device
    )
    metrics: dict[str, events.Number] = {"loss": loss, "rewards/margins": 0.0}
    return Record(None, [], start, steps={2: events.Step(**events.stamp(), step=2, metrics=metrics)})


def test_a_curve_is_the_same_to_the_last_bit_on_a_cpu_and_nearly_on_a_gpu() -> None:
    for device, close_is_ok in (("cpu", False), ("NVIDIA H100 80GB HBM3", True)):
        first = record_of(device, 0.69)
        assert findings.curve(first, record_of(device, 0.69)).ok
        assert findings.curve(first, record_of(device, 0.6901)).ok is close_is_ok
        assert not findings.curve(first, record_of(device, 0.7)).ok
        assert not findings.curve(first, record_of(device, float("nan"))).ok


@pytest.mark.train
def test_two_real_ranks_under_fsdp2_are_rehearsed_from_model_to_resumed_adapter(home: Home) -> None:
    home.timeout_s = 540
    result = home.daemon(
        "rehearse", "--profile", "fsdp2", "--json", "--keep",
        "--set", "data.max_length_tokens=96",
        PYTHONPATH="", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout, result.stderr)
    answer = json.loads(result.stdout)
    assert (answer["backend"], answer["ranks"], answer["device"]) == ("fsdp2", 2, "cpu")
    texts = {check["name"]: check["text"] for check in answer["checks"]}
    assert "self-test: sharding" in texts
    assert texts["adapter"].endswith("byte for byte")
