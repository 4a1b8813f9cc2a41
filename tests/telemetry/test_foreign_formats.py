"""One run, whoever wrote it down: the same rows, steps, attempts and alerts."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from dpo_telemetry.foreign.open import ReplayedLog, open_log
from dpo_telemetry.foreign.read import read_foreign
from dpo_tui.headless.command import replay_headless

from . import foreign_logs as logs

Write = Callable[[Sequence[logs.Row]], bytes]

FORMATS: dict[str, tuple[str, Write]] = {
    "trainer state": ("trainer_state", logs.trainer_state),
    "trainer state on one line": ("trainer_state", logs.compact_state),
    "list": ("json", logs.json_list),
    "list within an object": ("json", logs.list_within),
    "JSON lines": ("json_lines", logs.json_lines),
    "JSON lines of W&B": ("json_lines", logs.wandb_lines),
    "CSV": ("csv", logs.table),
    "CSV with tabs": ("csv", lambda rows: logs.table(rows, "\t")),
    "CSV of W&B": ("csv", lambda rows: logs.table([logs.grouped(row) for row in rows])),
    "output": ("stdout", logs.printed),
    "output with numpy": ("stdout", lambda rows: logs.printed(rows, lambda value: f"np.float64({value!r})")),
    "output with arrays": ("stdout", lambda rows: logs.printed(rows, lambda value: f"array({value!r}, dtype=float32)")),
    "output with tensors": (
        "stdout", lambda rows: logs.printed(rows, lambda value: f"tensor({value!r}, device='cuda:0')"),
    ),
    "output with quoted numbers": ("stdout", lambda rows: logs.printed(rows, lambda value: f"'{value!r}'")),
    "output of PowerShell": ("stdout", lambda rows: logs.printed(rows).decode().encode("utf-16")),
    "event file": ("tensorboard", logs.event_file),
    "event file of tensors": ("tensorboard", lambda rows: logs.event_file(rows, logs.tensor_floats)),
    "event file of double tensors": ("tensorboard", lambda rows: logs.event_file(rows, logs.tensor_content)),
    "notebook": ("notebook", lambda rows: logs.notebook(logs.stream_output(logs.printed(rows).decode()))),
}  # fmt: skip


def written(tmp_path: Path, data: bytes) -> Path:
    # No name of a file may say what is in it.
    path = tmp_path / "log"
    path.write_bytes(data)
    return path


def assert_same(found: ReplayedLog, expected: ReplayedLog) -> None:
    assert sorted(found.series.names()) == sorted(expected.series.names())
    for name in expected.series.names():
        got, wanted = found.series.effective(name), expected.series.effective(name)
        assert got.steps.tolist() == wanted.steps.tolist(), name
        # TensorBoard keeps 32 bits of a number.
        np.testing.assert_allclose(got.values, wanted.values, rtol=1e-6, err_msg=name)
    assert found.attempts == expected.attempts
    for table, other in (
        (found.series.train, expected.series.train),
        (found.series.eval, expected.series.eval),
    ):
        assert len(table.superseded_rows()) == len(other.superseded_rows())
    alerts, wanted_alerts = (
        [(alert.code, alert.severity, alert.metric, alert.step) for alert in log.alerts]
        for log in (found, expected)
    )
    assert alerts == wanted_alerts


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("restart_at", [None, 15])
def test_the_same_run_gives_the_same_answer_in_every_format(
    tmp_path: Path, name: str, restart_at: int | None
) -> None:
    rows = logs.history(restart_at=restart_at)
    expected = open_log(written(tmp_path, logs.trainer_state(rows)))
    assert expected.series.effective("loss").steps.tolist() == list(range(1, 31))
    assert expected.series.effective("eval_loss").steps.tolist() == [10, 20, 30]
    assert expected.attempts == (1 if restart_at is None else 2)
    assert "nonfinite" in [alert.code for alert in expected.alerts]
    kind, write = FORMATS[name]
    found = open_log(written(tmp_path, write(rows)))
    assert found.format == kind
    assert_same(found, expected)
    assert found.lines_not_understood == 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_compressed_log_is_read_like_a_plain_one(tmp_path: Path, name: str) -> None:
    kind, write = FORMATS[name]
    data = write(logs.history())
    expected = open_log(written(tmp_path, data))
    found = open_log(written(tmp_path, logs.packed(data)))
    assert found.format == expected.format == kind
    assert_same(found, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_standard_input_is_read_like_a_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, write = FORMATS[name]
    data = write(logs.history())
    expected = open_log(written(tmp_path, data))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(logs.packed(data))))
    found = open_log(Path("-"))
    assert (found.source, found.format) == ("-", kind)
    assert_same(found, expected)


def test_the_command_takes_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{'loss': 0.7}\n")))
    assert replay_headless(["-"], form="json", fail_on="warning") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["source"], result["rows"]) == ("-", 1)


@pytest.mark.parametrize("rows_at_once", [1, 7])
def test_a_long_log_is_diagnosed_in_parts_with_the_same_result(
    tmp_path: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, logs.trainer_state(logs.history(restart_at=15)))
    expected = open_log(path)
    monkeypatch.setattr("dpo_telemetry.foreign.open.ROWS_AT_ONCE", rows_at_once)
    assert_same(open_log(path), expected)


@pytest.mark.parametrize("name", ["trainer state", "output"])
def test_a_wide_log_is_diagnosed_with_the_same_result(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, FORMATS[name][1](logs.history(60, restart_at=15)))
    expected = open_log(path)
    monkeypatch.setattr("dpo_telemetry.foreign.open.MAX_CELLS", 0)
    monkeypatch.setattr("dpo_telemetry.foreign.open.CELLS_AT_ONCE", 100)
    assert_same(open_log(path), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_alerts_of_one_step_are_in_the_order_of_the_metrics(tmp_path: Path, name: str) -> None:
    rows = logs.history()
    rows[6] |= {"rewards/margins": logs.NAN, "logps/chosen": logs.NAN, "rewards/chosen": logs.NAN}
    expected = open_log(written(tmp_path, logs.trainer_state(rows)))
    assert len({alert.metric for alert in expected.alerts}) >= 4
    assert_same(open_log(written(tmp_path, FORMATS[name][1](rows))), expected)


@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
@pytest.mark.parametrize("name", FORMATS)
def test_it_does_not_matter_how_the_bytes_are_cut(
    tmp_path: Path, name: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, write = FORMATS[name]
    data = write(logs.history(12))
    expected = open_log(written(tmp_path, data))
    monkeypatch.setattr("dpo_telemetry.foreign.source.BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("dpo_telemetry.foreign.source.HEAD_BYTES", 700)
    monkeypatch.setattr("dpo_telemetry.foreign.tensorboard.BLOCK_BYTES", block_bytes)
    assert_same(open_log(written(tmp_path, data)), expected)


def test_llama_factorys_log_is_read_under_trls_names(tmp_path: Path) -> None:
    rows = [
        {
            "current_steps": n, "total_steps": 30, "loss": 0.69 - n / 100, "accuracy": 0.75, "lr": 1e-6, "epoch": n / 8,
            "percentage": n / 0.3, "elapsed_time": "0:00:01", "remaining_time": "0:00:02", "throughput": 12.5,
        }
        for n in (10, 20, 30)
    ]  # fmt: skip
    evaluation = {"current_steps": 20, "total_steps": 30, "eval_loss": 0.6, "epoch": 2.5, "percentage": 66.67}
    end = {
        "current_steps": 30,
        "total_steps": 30,
        "epoch": 3.75,
        "percentage": 100.0,
        "elapsed_time": "0:00:09",
    }
    log = open_log(written(tmp_path, logs.json_lines([*rows[:2], evaluation, rows[2], end])))
    assert (log.format, log.step_source, log.lines_not_understood) == ("json_lines", "logged", 0)
    names = ["loss", "rewards/accuracies", "learning_rate", "epoch", "throughput"]
    assert log.series.train.names() == names
    assert log.series.eval.names() == ["eval_loss", "eval_epoch"]
    assert log.series.effective("rewards/accuracies").steps.tolist() == [10, 20, 30]
    assert log.series.effective("eval_loss").steps.tolist() == [20]


def test_rows_without_steps_are_counted(tmp_path: Path) -> None:
    rows = [{"loss": 0.7}, {"loss": 0.6}, {"eval_loss": 0.65}, {"loss": 0.5}]
    for data in (logs.json_lines(rows), logs.json_list(rows), logs.table(rows)):
        log = open_log(written(tmp_path, data))
        assert log.step_source == "counted"
        assert log.series.effective("loss").steps.tolist() == [1, 2, 3]
        assert log.series.effective("eval_loss").steps.tolist() == [2]


def test_other_names_of_steps_are_known(tmp_path: Path) -> None:
    for name in ("global_step", "Step", "trainer/global_step", "train/global_step", "_step"):
        log = open_log(written(tmp_path, logs.json_lines([{name: 40, "train/loss": 0.5}])))
        assert log.series.effective("loss").steps.tolist() == [40]
    log = open_log(written(tmp_path, b'{"loss": 0.5, "global_step/max_steps": "40/100"}\n'))
    assert log.series.effective("loss").steps.tolist() == [40]


def test_a_row_with_losses_of_both_kinds_is_a_row_of_each(tmp_path: Path) -> None:
    log = open_log(written(tmp_path, b"step,train_loss,val_loss,epoch\n10,0.7,,1\n20,0.6,0.65,2\n"))
    assert log.series.effective("loss").values.tolist() == [0.7, 0.6]
    assert log.series.effective("eval_loss").steps.tolist() == [20]
    assert log.series.effective("eval_epoch").values.tolist() == [2.0]


def test_names_of_other_trainers_stay_as_they_are(tmp_path: Path) -> None:
    row = {
        "objective/kl": 1.0,
        "policy/approxkl_avg": 0.1,
        "val/ratio": 1.0,
        "mean_token_accuracy": 0.5,
        "step": 1,
    }
    log = open_log(written(tmp_path, logs.json_lines([row])))
    assert log.series.train.names() == list(row)[:-1]


def test_a_row_that_keeps_its_metrics_apart_is_unfolded(tmp_path: Path) -> None:
    line = {"k": "step", "v": 1, "t": 1.7e9, "step": 3, "metrics": {"loss": "nan", "grad_norm": 2.0}}
    log = open_log(written(tmp_path, logs.json_lines([line])))
    assert log.series.names() == ["loss", "grad_norm"]
    assert log.series.effective("grad_norm").steps.tolist() == [3]


def test_a_chart_exported_from_wandb_is_one_metric(tmp_path: Path) -> None:
    head = '"train/global_step","dpo - 72b - train/loss","dpo - 72b - train/loss__MIN","dpo - 72b - train/loss__MAX"\n'
    log = open_log(written(tmp_path, (head + '"10","0.69","0.68","0.7"\n"20","0.6","0.6","0.6"\n').encode()))
    assert log.series.names() == ["loss"]
    assert log.series.effective("loss").steps.tolist() == [10, 20]


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("run-Nov24_node1-tag-train_loss.csv", "loss"),
        ("run-.-tag-eval_rewards_margins.csv", "eval_rewards/margins"),
        ("run-.-tag-train_logps_chosen.csv.gz", "logps/chosen"),
    ],
)
def test_the_file_name_of_tensorboards_export_says_the_metric(tmp_path: Path, name: str, metric: str) -> None:
    data = b"Wall time,Step,Value\n1790000000.5,10,0.69\n1790000001.5,20,0.6\n"
    path = tmp_path / name
    path.write_bytes(logs.packed(data) if name.endswith("gz") else data)
    log = open_log(path)
    assert log.series.names() == [metric]
    assert log.series.effective(metric).steps.tolist() == [10, 20]


def test_the_trainers_table_in_a_notebook(tmp_path: Path) -> None:
    header = ["Step", "Training Loss", "Validation Loss", "Rewards/margins", "Mean Token Accuracy"]
    rows = [["10", "No log", "0.690000", "0.010000", "0.5"], ["20", "0.650000", "nan", "No Log", "0.6"]]
    log = open_log(written(tmp_path, logs.notebook(logs.table_output(header, rows))))
    assert (log.format, log.step_source) == ("notebook", "logged")
    assert log.series.effective("loss").steps.tolist() == [20]
    assert log.series.effective("eval_loss").steps.tolist() == [10, 20]
    assert np.isnan(log.series.effective("eval_loss").values[1])
    assert log.series.effective("eval_rewards/margins").steps.tolist() == [10]
    assert log.series.effective("eval_mean_token_accuracy").values.tolist() == [0.5, 0.6]


@pytest.mark.parametrize(
    ("label", "steps", "source"),
    [("[300/300 00:12, Epoch 3/3]", [100, 200, 300], "progress bar"), ("[7/", [1, 2, 3], "counted")],
)
def test_a_table_by_epochs_takes_its_steps_from_the_bar(
    tmp_path: Path, label: str, steps: list[int], source: str
) -> None:
    rows = [[str(n), f"0.{n}", "0.5"] for n in (1, 2, 3)]
    output = logs.table_output(["Epoch", "Training Loss", "Validation Loss"], rows, label)
    log = open_log(written(tmp_path, logs.notebook(output)))
    assert log.series.effective("loss").steps.tolist() == steps
    assert log.step_source == source
    assert log.series.effective("epoch").values.tolist() == [1.0, 2.0, 3.0]


def test_other_tables_of_a_notebook_are_no_rows(tmp_path: Path) -> None:
    frame = logs.table_output(["", "loss", "grad_norm"], [["0", "0.7", "NaN"]])
    losses = logs.table_output(["Step", "Training Loss"], [["10", "0.7"]])
    log = open_log(written(tmp_path, logs.notebook(frame, losses)))
    assert log.series.effective("loss").steps.tolist() == [10]
    assert log.series.names() == ["loss"]


CONFIG = (
    "DPOConfig(\n_n_gpu=1,\nadam_beta1=0.9,\nbeta=0.25,\nloss_type=['ipo'],\nseed=42,\n)\nloaded beta=7\n"
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(CONFIG.encode() + b"{'loss': 0.7}\n", id="printed config"),
        pytest.param(b"x = DPOConfig(beta=0.25, loss_type='ipo')\n{'loss': 0.7}\n", id="on one line"),
        pytest.param(b"pref_beta: 0.25\npref_loss: ipo\n{'loss': 0.7}\n", id="LLaMA-Factory"),
        pytest.param(logs.notebook(logs.stream_output("{'loss': 0.7}\n"), source=CONFIG), id="notebook"),
        pytest.param(
            logs.event_file([{"loss": 0.7, "step": 1}])
            + logs.record(
                logs.event(0, logs.field(5, logs.field(1, logs.field(1, b"args/text_summary") + logs.field(
                    8, b"\x08\x07" + logs.field(8, json.dumps({"beta": 0.25, "loss_type": ["ipo"]}).encode()))
                )))
            ),
            id="TensorBoard",
        ),
    ],
)  # fmt: skip
def test_loss_and_beta_are_taken_from_what_stands_around_the_rows(tmp_path: Path, data: bytes) -> None:
    log = read_foreign(written(tmp_path, data))
    assert (log.beta, log.loss_kind) == (0.25, "ipo")


@pytest.mark.parametrize(
    "text",
    [
        "beta=0.25\nloss_type=ipo\n",
        "optimizer(beta=0.25)\n",
        "pref_beta: 0.2\npref_beta: 0.3\npref_loss: null-ish?\n",
    ],
)
def test_what_is_not_certain_is_not_taken(tmp_path: Path, text: str) -> None:
    log = read_foreign(written(tmp_path, text.encode() + b"{'loss': 0.7}\n"))
    assert log.beta is None


def test_the_first_of_counted_rows_is_not_held_to_be_the_first_step(tmp_path: Path) -> None:
    row = {"loss": 0.5, "rewards/chosen": 0.3, "rewards/rejected": -0.2, "rewards/margins": 0.5}
    logged = open_log(written(tmp_path, logs.json_lines([{**row, "step": n} for n in (1, 2, 3)])))
    assert "reference_mismatch" in [alert.code for alert in logged.alerts]
    counted = open_log(written(tmp_path, logs.json_lines([row] * 3)))
    assert "reference_mismatch" not in [alert.code for alert in counted.alerts]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_spreadsheets_decimal_commas_are_points(tmp_path: Path, delimiter: str) -> None:
    rows = logs.history()
    expected = open_log(written(tmp_path, logs.table(rows)))
    found = open_log(written(tmp_path, logs.table(rows, delimiter).replace(b".", b",")))
    assert_same(found, expected)
    assert found.lines_not_understood == 0


def test_a_comma_that_is_no_decimal_point_makes_no_number(tmp_path: Path) -> None:
    data = b"step;loss;note\n1;0,5;a, b\n2;0,4;1,2,3\n3;1,000,000;c\n"
    log = open_log(written(tmp_path, data))
    assert log.series.effective("loss").values.tolist() == [0.5, 0.4]
    assert log.series.names() == ["loss"]


@pytest.mark.parametrize("form", ["lines", "list"])
def test_a_value_that_is_null_was_not_logged(form: str, tmp_path: Path) -> None:
    rows = [
        {"loss": 0.5, "grad_norm": 1.0, "eval_loss": 0.4 if step % 10 == 0 else None, "step": step}
        for step in range(1, 41)
    ]
    text = "\n".join(map(json.dumps, rows)) if form == "lines" else json.dumps(rows)
    log = open_log(written(tmp_path, text.encode()))
    assert log.series.effective("eval_loss").steps.tolist() == [10, 20, 30, 40]
    assert "nonfinite" not in {alert.code for alert in log.alerts}
