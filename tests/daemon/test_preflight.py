"""What speaks against a start: each check alone, then through `dpo-daemon start`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_daemon.preflight import CHECKS, Candidate, Finding, preflight
from dpo_profiles.load import load_profile, shipped_names
from dpo_profiles.plan import make_plan
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunDirectory

from .conftest import Home

STUB = Path(__file__).with_name("nvml_stub.c")
DOOMED = "fsdp-seed"
PLAN_ONLY = "full-70b"


def findings(name: str, *overrides: str, gpus: int | None = None) -> list[Finding]:
    profile = load_profile(name, overrides)
    return preflight(Candidate(profile=profile, plan=make_plan(profile), gpus=gpus))


def only(found: list[Finding], name: str) -> str:
    """The text of the one finding there is."""
    assert [finding.name for finding in found] == [name]
    return found[0].text


def pairs_file(folder: Path, rows: int, prompt: str = "Why is the sky blue?") -> str:
    """A local data file, as a --set."""
    user = {"role": "user", "content": prompt}
    answers = {side: [user, {"role": "assistant", "content": side * 5}] for side in ("chosen", "rejected")}
    path = folder / "pairs.jsonl"
    path.write_text((json.dumps(answers) + "\n") * rows)
    return f"data.name={path}"


@pytest.mark.parametrize("name", [name for name in shipped_names() if name not in (DOOMED, PLAN_ONLY)])
def test_every_shipped_profile_but_one_passes_as_far_as_the_profile_goes(name: str) -> None:
    assert findings(name) == []


def test_the_job_as_first_published_is_refused_for_its_truncation_and_its_dtypes() -> None:
    dtypes, truncation = findings(DOOMED)
    assert (dtypes.name, truncation.name) == ("dtypes", "truncation")
    assert "float16 around bfloat16 weights" in dtypes.text
    assert "data.max_length_tokens is 32 and data.over_long is truncate" in truncation.text
    assert "byte-level tokenizer, 6 bytes a token" in truncation.text


def test_what_mends_the_published_job_mends_it_for_the_preflight() -> None:
    longer = findings(DOOMED, "data.max_length_tokens=512")
    assert [finding.name for finding in longer] == ["dtypes"]
    dropping = findings(DOOMED, "data.over_long=drop", "data.max_length_tokens=512")
    assert [finding.name for finding in dropping] == ["dtypes"]


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("demo", ["model.compute_dtype=float16"], "model.compute_dtype is float16"),
        (
            "demo",
            ["adapter.master_dtype=bfloat16", "optimizer.learning_rate=5e-6"],
            "adapter.master_dtype is bfloat16 and optimizer.learning_rate is 5e-06",
        ),
    ],
)
def test_a_type_that_is_known_to_fail_is_refused(name: str, overrides: list[str], says: str) -> None:
    assert says in only(findings(name, *overrides), "dtypes")


@pytest.mark.parametrize("backend", ["fsdp", "fsdp2"])
def test_a_bfloat16_autocast_rounds_log_probs_under_fsdp2_alone(backend: str, tmp_path: Path) -> None:
    version = 2 if backend == "fsdp2" else 1
    file = tmp_path / "bf16.yaml"
    file.write_text(
        f"distributed_type: FSDP\nmixed_precision: bf16\nfsdp_config:\n  fsdp_version: {version}\n"
    )
    found = findings(backend, "model.autocast_dtype=bfloat16", f"engine.accelerate_file={file}")
    if backend == "fsdp":
        assert found == []
    else:
        assert "rounds log-probs" in only(found, "dtypes")


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("demo", ["adapter.master_dtype=bfloat16"]),
        ("demo", ["model.compute_dtype=float32"]),
        ("demo", ["model.compute_dtype=bfloat16"]),
    ],
    ids=["at a high learning rate", "float32", "bfloat16"],
)
def test_a_type_that_works_is_not_refused(name: str, overrides: list[str]) -> None:
    assert findings(name, *overrides) == []


@pytest.mark.parametrize("over_long", ["drop", "truncate"])
@pytest.mark.parametrize("limit", [96, 192, 512, 4096])
def test_no_sensible_length_is_refused(limit: int, over_long: str) -> None:
    changes = [f"data.max_length_tokens={limit}", f"data.over_long={over_long}"]
    assert findings("demo", *changes) == []


def test_dropping_is_refused_only_when_no_pair_would_be_left() -> None:
    text = only(findings("demo", "data.max_length_tokens=24"), "truncation")
    assert "none of the shipped pairs is that short" in text


def test_a_local_file_is_measured_on_its_first_rows(tmp_path: Path) -> None:
    cut = ["data.max_length_tokens=64", "data.over_long=truncate"]
    short = pairs_file(tmp_path, 300)
    assert findings("demo", short, *cut) == []
    long = pairs_file(tmp_path, 300, prompt="word " * 200)
    text = only(findings("demo", long, *cut), "truncation")
    assert "100% of the first 256 pairs of pairs.jsonl" in text


def test_rows_that_are_no_pairs_are_left_to_those_who_read_them_all(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('no json\n[1]\n{"chosen": 3}\n\n{"chosen": "a", "rejected": "b"}\n')
    ranks = ["engine.backend=ddp", "engine.gpus_per_node=2"]
    assert findings("demo", f"data.name={file}", *ranks) == []
    assert findings("demo", f"data.name={tmp_path}/nowhere.jsonl", *ranks) == []


def test_more_ranks_than_training_pairs_are_refused(tmp_path: Path) -> None:
    data = pairs_file(tmp_path, 20)
    ranks = ["engine.backend=ddp", "engine.gpus_per_node=5"]
    text = only(findings("demo", data, *ranks), "world_size")
    assert "is 5 ranks" in text
    assert "leaves at most 4 pairs to train on" in text
    assert findings("demo", data, *ranks, "data.heldout_pairs=15") == []
    assert only(
        findings("demo", data, *ranks, "data.heldout_pairs=1", "data.train_pairs=3"), "world_size"
    ).endswith("take fewer ranks or more pairs")
    shared = ["data.heldout_pairs=0", "data.heldout_fraction=0.9"]
    assert "at most 2 pairs" in only(findings("demo", data, *ranks, *shared), "world_size")


def test_one_rank_without_pairs_is_left_to_the_trainer(tmp_path: Path) -> None:
    assert findings("demo", pairs_file(tmp_path, 3)) == []


def test_more_ranks_than_layers_are_refused_where_layers_are_sharded() -> None:
    many = ["engine.gpus_per_node=31", "quantization.storage_dtype=bfloat16"]
    text = only(findings("demo", *many, "engine.backend=fsdp2"), "world_size")
    assert "has 30 decoder layers" in text
    assert findings("demo", *many, "engine.backend=ddp") == []


def test_the_layers_of_an_unknown_model_are_not_guessed() -> None:
    overrides = ["model.base=nobody/unheard-of", "engine.backend=fsdp2", "engine.gpus_per_node=31"]
    profile = load_profile("demo", [*overrides, "quantization.storage_dtype=bfloat16"])
    assert preflight(Candidate(profile=profile)) == []


def test_a_plan_that_does_not_fit_is_a_finding_with_the_plans_own_mend() -> None:
    text = only(findings("zero3", "hardware.capacity_bytes=16000000000"), "plan")
    assert text.startswith("the plan does not fit NVIDIA H100 80GB HBM3 of 14.9 GiB: ")
    assert "6.4 GiB a GPU too much" in text


def test_fsdp1_is_planned_and_not_started() -> None:
    assert "planned and not run; take fsdp2" in only(findings("fsdp", "hardware.gpu=", gpus=0), "backend")
    assert "planned and not run; take fsdp2" in only(findings("fsdp", gpus=8), "backend")
    assert findings("fsdp", gpus=None) == []
    assert findings("fsdp2", "hardware.gpu=", gpus=0) == []


def test_a_profile_that_names_its_gpu_needs_that_many_here() -> None:
    assert "gpus_per_node is 8, of NVIDIA H100 80GB HBM3, and 2 NVIDIA GPUs" in only(
        findings("zero3", gpus=2), "gpus"
    )
    assert "and no NVIDIA GPUs are here" in only(findings("single", gpus=0), "gpus")
    assert findings("zero3", gpus=8) == findings("zero3") == findings("demo", gpus=0) == []


def test_several_nodes_are_planned_but_not_started() -> None:
    text = only(findings("multinode", gpus=8), "backend")
    assert text.startswith("engine.nodes is 2")
    assert "set engine.nodes to 1, or plan it" in text


@pytest.mark.system("gcc")
def test_a_gpu_that_is_lost_is_not_counted(tmp_path: Path) -> None:
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", library, STUB,
         "-Wl,-soname,libnvidia-ml.so.1"],
        check=True,
    )  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", "from dpo_daemon.preflight import gpu_count\nprint(gpu_count())"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == "1\n", "the stub has two, of which one fell off the bus"


def test_start_names_everything_that_was_found_and_makes_nothing(home: Home) -> None:
    result = home.daemon("start", "--profile", DOOMED)
    assert result.returncode == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"error: {DOOMED}: dtypes: model.autocast_dtype is float16")
    assert lines[1].startswith(f"error: {DOOMED}: truncation: data.max_length_tokens is 32")
    assert not home.runs_dir.exists()
    assert home.processes() == []


def test_start_tells_programs_what_was_found(home: Home) -> None:
    result = home.daemon("start", "--profile", DOOMED, "--json")
    found = {finding["name"]: finding["text"] for finding in json.loads(result.stdout)["preflight"]}
    assert result.returncode == 1
    assert {"dtypes", "truncation"} <= found.keys()
    assert all(f"error: {DOOMED}: {name}: {text}" in result.stderr for name, text in found.items())


def test_a_dry_run_shows_the_plan_and_what_was_found(home: Home) -> None:
    result = home.daemon("start", "--profile", DOOMED, "--dry-run", "--json")
    answer = json.loads(result.stdout)
    assert (result.returncode, answer["fits"]) == (1, True)
    assert [finding["name"] for finding in answer["preflight"]] == ["dtypes", "truncation"]
    assert answer["plan"]["profile"] == DOOMED
    fine = home.daemon("start", "--profile", "demo", "--dry-run", "--json")
    assert (fine.returncode, json.loads(fine.stdout)["preflight"]) == (0, [])


@pytest.mark.parametrize("name", ["fsdp", "multinode"])
def test_what_cannot_be_started_here_can_be_run_dry(home: Home, name: str) -> None:
    (home.path / "SFT_LoRA").mkdir()
    result = home.daemon("start", "--profile", name, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["plan"]["world_size"] == load_profile(name).engine.world_size
    over = home.daemon("start", "--profile", name, "--dry-run", "--set", "hardware.capacity_bytes=1000")
    assert over.returncode == 1
    assert ": plan: " in over.stderr


def test_several_nodes_are_refused_at_a_start_as_bad_news(home: Home) -> None:
    result = home.daemon("start", "--profile", "multinode")
    assert result.returncode == 1
    assert "multinode: backend: engine.nodes is 2" in result.stderr
    assert not home.runs_dir.exists()


def test_one_finding_is_overridden_by_its_name_and_the_others_stand(home: Home) -> None:
    result = home.daemon("start", "--profile", DOOMED, "--dry-run", "--json", "--force", "dtypes")
    assert [finding["name"] for finding in json.loads(result.stdout)["preflight"]] == ["truncation"]
    assert result.returncode == 1


def test_a_run_whose_plan_does_not_fit_starts_only_by_force(
    home: Home, ended: Callable[[RunDirectory], HostExit]
) -> None:
    home.profile.write_text(
        home.profile.read_text().replace("nobody/tiny-model", "nobody/SmolLM2-135M-Instruct")
        + "[hardware]\ncapacity_bytes = 1000000\n"
    )
    result = home.daemon("start", "--profile", home.profile)
    assert result.returncode == 1
    assert ": plan: the plan does not fit" in result.stderr
    assert not home.runs_dir.exists()
    assert ended(home.start("--force", "plan", STANDIN_STEPS="2")).code == 0


def test_an_unknown_check_is_answered_with_those_there_are(home: Home) -> None:
    result = home.daemon("start", "--profile", "demo", "--force", "luck")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert all(f"'{name}'" in line for name in CHECKS)
    assert not home.runs_dir.exists()


def test_the_document_names_every_check() -> None:
    document = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in document for name in CHECKS)
