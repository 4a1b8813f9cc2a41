"""benchmarks/plan_points.py on a few published rows, and its figures."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plan_points.py"
ATTENTION = "q_proj k_proj v_proj o_proj"
FMS = "foundation-model-stack/fms-acceleration scripts/benchmarks/refs/a100_80gb_liger.csv"
SHARED = {
    "method": "qlora",
    "quant": "nf4-dq",
    "quant_storage": "bf16",
    "lora_r": "16",
    "targets": ATTENTION,
    "sequences": "1",
    "seq_len": "4096",
    "micro_batch": "4",
    "grad_ckpt": "true",
    "optimizer": "adamw",
    "loss": "fused",
    "backend": "fsdp1",
    "world_size": "2",
    "offload": "none",
    "gpu": "A100-80GB",
    "source": FMS,
    "notes": "framework_config=accelerated-peft-bnb-foak-liger; torch 2.4.1",
}
ONE_GPU = {
    "quant_storage": "uint8",
    "backend": "single",
    "world_size": "1",
}
MEASURED = [
    ("mistral-2", "mistralai/Mistral-7B-v0.1", {}, {"resident": 2.091, "allocated": 14.609, "nvml": 19.495}),
    ("llama-2", "meta-llama/Meta-Llama-3-8B", {}, {"resident": 2.825, "allocated": 16.624, "nvml": 21.645}),
    ("mistral-1", "mistralai/Mistral-7B-v0.1", ONE_GPU, {"resident": 4.011, "allocated": 12.14, "nvml": 13.839}),
    (
        "llama-1",
        "meta-llama/Meta-Llama-3-8B",
        {**ONE_GPU, "notes": "framework_config=accelerated-peft-bnb-foak; torch 2.4.1"},
        {"resident": 5.48, "allocated": 25.387, "nvml": 40.255},
    ),
]  # fmt: skip
"""Published by foundation-model-stack, A100-80GB, GiB."""


def write(path: Path, scale: float = 1.0, **changes: str) -> Path:
    rows = [
        {"id": f"{name}-{kind}", "model": model, **SHARED, **own, **changes, "kind": kind, "gib": gib * scale}
        for name, model, own, kinds in MEASURED
        for kind, gib in kinds.items()
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def answer(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return found


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write(tmp_path / "points.csv")


def test_published_rows_are_planned_within_the_goals(points: Path) -> None:
    found = {name: figure["value"] for name, figure in answer(str(points))["figures"].items()}
    assert found["resident_mape"] < 0.1
    assert found["allocated_mape"] < 1
    assert found["allocated_max"] < 1.5
    assert found["nvml_coverage"] == 100
    assert found["nvml_width_gib"] < 12


def test_each_row_has_plan_measured_and_error(points: Path) -> None:
    rows = answer(str(points))["tables"]["points"]
    assert [row["id"] for row in rows[:3]] == ["mistral-2-resident", "mistral-2-allocated", "mistral-2-nvml"]
    for row in rows:
        assert row["low_gib"] <= row["plan_gib"] <= row["high_gib"]
        assert row["error_percent"] == pytest.approx(
            100 * (row["plan_gib"] / row["measured_gib"] - 1), abs=0.1
        )


def test_figures_get_worse_where_measurements_are_other_than_planned(tmp_path: Path) -> None:
    found = answer(str(write(tmp_path / "twice.csv", scale=2.0)))["figures"]
    assert found["resident_mape"]["value"] == pytest.approx(50, abs=1)
    assert found["allocated_max"]["value"] > found["allocated_mape"]["value"] > 45
    assert found["nvml_coverage"]["value"] == 0


def test_without_a_quantised_base_the_rows_are_lora_rows(tmp_path: Path) -> None:
    rows = answer(str(write(tmp_path / "lora.csv", quant="bf16", quant_storage="", method="lora")))
    resident = [row for row in rows["tables"]["points"] if row["id"] == "mistral-1-resident"]
    assert resident[0]["plan_gib"] == pytest.approx(13.657, abs=2e-3)


def test_a_model_left_out_is_planned_with_figures_of_the_others(points: Path) -> None:
    table = answer(str(points), "--leave-one-out")["tables"]["leave_one_out"]
    assert [row["left_out"] for row in table] == ["Meta-Llama-3-8B", "Mistral-7B-v0.1"]
    assert all(row["allocated_max"] < 8 for row in table)


def test_an_interval_ends_where_the_card_does(tmp_path: Path) -> None:
    rows = answer(str(write(tmp_path / "full.csv", micro_batch="32")))["tables"]["points"]
    shown = [row for row in rows if row["id"].endswith("nvml")]
    assert max(row["high_gib"] for row in shown) == pytest.approx(81_251 / 1024, abs=1e-3)


def test_a_file_that_lacks_columns_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("id,model\na,b\n")
    found = run(str(tmp_path / "bad.csv"))
    assert found.returncode == 2
    assert "lacks the columns method, quant, quant_storage" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_row_that_cannot_be_planned_is_named(tmp_path: Path) -> None:
    found = run(str(write(tmp_path / "odd.csv", backend="pipeline")))
    assert found.returncode == 2
    assert "mistral-2-resident: backend: 'pipeline' is not planned" in found.stderr


def test_the_page_is_what_the_script_prints() -> None:
    document = SCRIPT.parents[1] / "docs" / "plan.md"
    assert document.read_text() == run("--page").stdout


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    found = run(str(tmp_path / "nosuch.csv"))
    assert found.returncode == 2
    assert "give a CSV file" in found.stderr
