"""What a folder that is no run directory of ours holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign.open import open_log

from . import foreign_logs as logs

ROWS = logs.history(12)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def steps(path: Path) -> list[int]:
    return [int(step) for step in open_log(path).series.effective("loss").steps]


def test_event_files_of_a_folder_are_one_log(tmp_path: Path) -> None:
    put(tmp_path / "events.out.tfevents.1790000000.node1.1.0", logs.event_file(ROWS[:9]))
    put(tmp_path / "events.out.tfevents.1790000900.node1.2.0", logs.event_file(logs.history(8)[4:]))
    log = open_log(tmp_path)
    assert (log.format, log.attempts) == ("tensorboard", 2)
    assert log.series.effective("loss").steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert len(log.series.train.superseded_rows()) == 4


def test_event_files_in_one_folder_below_are_found_and_those_of_several_refused(tmp_path: Path) -> None:
    put(tmp_path / "runs" / "Nov24_node1" / "events.out.tfevents.1", logs.event_file(ROWS))
    assert steps(tmp_path) == list(range(1, 13))
    put(tmp_path / "runs" / "Nov25_node1" / "events.out.tfevents.1", logs.event_file(ROWS))
    with pytest.raises(TelemetryError, match=r"2 folders \(runs/Nov24_node1, runs/Nov25_node1\); give one"):
        open_log(tmp_path)


def test_event_files_within_the_folder_of_another_belong_to_its_run(tmp_path: Path) -> None:
    put(tmp_path / "runs" / "Nov24_node1" / "events.out.tfevents.1", logs.event_file(ROWS))
    put(tmp_path / "runs" / "Nov24_node1" / "1790000000.5" / "events.out.tfevents.2", logs.event_file([]))
    assert steps(tmp_path) == list(range(1, 13))


def test_another_writers_figures_do_not_replace_training_at_the_same_steps(tmp_path: Path) -> None:
    put(tmp_path / "events.out.tfevents.1", logs.event_file(ROWS))
    put(
        tmp_path / "events.out.tfevents.2",
        logs.event_file([{"gpu/memory": 0.5, "step": n} for n in range(1, 13)]),
    )
    log = open_log(tmp_path)
    assert log.series.effective("loss").steps.tolist() == list(range(1, 13))
    assert (log.attempts, len(log.series.train.superseded_rows())) == (1, 0)
    assert "nonfinite" in [alert.code for alert in log.alerts]


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("trainer_log.jsonl", logs.json_lines(ROWS), "json_lines"),
        ("files/output.log", logs.printed(ROWS), "stdout"),
        ("output.log", logs.printed(ROWS), "stdout"),
        ("checkpoint-12/trainer_state.json", logs.trainer_state(ROWS), "trainer_state"),
    ],
)
def test_what_trainers_leave_in_a_folder_is_found(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    put(tmp_path / name, data)
    put(tmp_path / "README.md", b"# Model")
    assert open_log(tmp_path).format == kind
    assert steps(tmp_path) == list(range(1, 13))


def test_the_trainers_state_goes_before_other_logs(tmp_path: Path) -> None:
    put(tmp_path / "events.out.tfevents.1", logs.event_file(ROWS))
    put(tmp_path / "trainer_state.json", logs.trainer_state(logs.history(3)))
    assert steps(tmp_path) == [1, 2, 3]


def test_a_folder_with_no_log_is_told(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors", b"\0" * 100)
    with pytest.raises(TelemetryError, match="neither a run directory"):
        open_log(tmp_path)
