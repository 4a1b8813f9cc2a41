"""`dpo-daemon plan RUN`: what was planned beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dpo_daemon.cli.plan import command
from dpo_telemetry import events
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.writer import EventWriter

STEP = {"policy_weights": 1000, "adapters": 200, "activations": 500}
PLAN = {
    "per_gpu": [
        {
            "phases": {"step": STEP},
            "cache_fragmentation_bytes": {"low": 100, "high": 600},
            "nvml_bytes": {"low": 1800, "high": 2500},
        }
    ]
    * 2
}


def memory(components: dict[str, int], **more: int) -> events.Memory:
    return events.Memory(**events.stamp(), phase="train", components=components, **more)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = create_run(tmp_path, "tiny")
    create_attempt(run, 'name = "tiny"', json.dumps(PLAN).encode())
    return run


def measure(run: RunDirectory, rank: int, *found: events.Memory) -> None:
    writer = EventWriter(run.attempt(1).event_file(f"rank-{rank:05d}"))
    for event in found:
        writer.put(event)
    writer.close()


def ask(run: RunDirectory, *options: str) -> Any:
    return CliRunner().invoke(command, [str(run.path), *options])


def test_each_rank_is_held_against_its_plan_at_its_largest(run: RunDirectory) -> None:
    measure(run, 0, memory({"policy_weights": 900}), memory({"policy_weights": 1010, "adapters": 200}))
    measure(
        run,
        1,
        memory(
            {"policy_weights": 1000}, peak_allocated_bytes=1600, allocated_bytes=1000, reserved_bytes=1700
        ),
    )
    first, second = json.loads(ask(run, "--json").output)["ranks"]
    exact = {"planned_low_bytes": 1000, "planned_bytes": 1000, "measured_bytes": 1010, "difference_bytes": 10}
    assert first["components"]["policy_weights"] == exact
    assert first["components"]["adapters"]["difference_bytes"] == 0
    assert "activations" not in first["components"], "a CPU measures none"
    assert second["peaks"]["train"]["difference_bytes"] == -100
    assert second["components"]["activations"]["difference_bytes"] == -100
    cache = second["components"]["cache_fragmentation"]
    assert (cache["measured_bytes"], cache["difference_bytes"]) == (100, 0)


def test_people_get_a_table_with_signs_and_shares_and_alike_ranks_in_one(run: RunDirectory) -> None:
    for rank in range(2):
        measure(run, rank, memory({"policy_weights": 900}))
    lines = ask(run).output.splitlines()
    assert [line.split(" of ")[0] for line in lines if line.startswith("rank")] == ["ranks 0, 1"]
    (row,) = [line for line in lines if line.startswith("policy_weights")]
    assert row.split()[-1] == "(-10.0%)"


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (b"{}", "holds no plan"),
        (b"[]", "holds no plan"),
        (json.dumps(PLAN).encode(), "no rank has measured"),
    ],
)
def test_a_run_without_a_plan_or_a_measurement_is_one_line(run: RunDirectory, plan: bytes, says: str) -> None:
    run.attempt(1).plan_file.write_bytes(plan)
    failed = ask(run)
    assert says in failed.output
    assert failed.exit_code == 2


def test_a_run_and_a_profile_are_two_questions(run: RunDirectory) -> None:
    assert "two questions" in ask(run, "--profile", "demo").output
    assert "Give --profile" in CliRunner().invoke(command, []).output
