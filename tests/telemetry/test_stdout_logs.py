"""Raw output of a trainer: its rows are found among bars, colours and anything else."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tqdm import tqdm  # type: ignore[import-untyped]

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.open import open_log
from dpo_telemetry.foreign.source import open_source
from dpo_telemetry.foreign.stdout import MAX_SEGMENT_BYTES, read


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "train.log"


def parse(path: Path, text: str | bytes) -> ForeignLog:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with open_source(path) as source:
        return read(source)


def steps(log: ForeignLog, name: str = "loss") -> list[int]:
    return [int(step) for step in log.series.effective(name).steps]


def values(log: ForeignLog, name: str = "loss") -> list[float]:
    return [float(value) for value in log.series.effective(name).values]


def bar(step: int, total: int, description: str = "") -> str:
    return f"\r{description}{100 * step // total:3d}%|{'█' * 3:<10}| {step}/{total} [00:06<00:26,  3.37s/it]"


def test_rows_without_a_bar_are_counted(log: Path) -> None:
    found = parse(log, "loading\n{'loss': 0.7, 'epoch': 0.1}\nwarning: x\n{'loss': 0.6, 'epoch': 0.2}\n")
    assert (steps(found), values(found), found.step_source) == ([1, 2], [0.7, 0.6], "counted")
    assert values(found, "epoch") == [0.1, 0.2]


def test_a_step_in_the_row_wins(log: Path) -> None:
    found = parse(log, bar(3, 10) + "\n{'loss': 0.7, 'step': 40}\n" + bar(3, 10))
    assert (steps(found), found.step_source) == ([40], "logged")
    assert found.series.names() == ["loss"]


def test_the_bar_behind_a_row_says_its_step(log: Path) -> None:
    text = "".join(f"{bar(n - 1, 30)}\r{' ' * 40}\r{{'loss': 0.{n}}}\n{bar(n, 30)}" for n in (10, 20, 30))
    found = parse(log, text)
    assert (steps(found), found.step_source, found.attempts) == ([10, 20, 30], "progress bar", 1)


def test_the_bar_before_a_row_does_where_none_follows(log: Path) -> None:
    found = parse(log, bar(2, 10) + "{'loss': 0.7}\n")
    assert (steps(found), found.step_source) == ([2], "progress bar")


@pytest.mark.parametrize(
    "description", ["Map: ", "Tokenizing train dataset (num_proc=4): ", "Loading weights:", ""]
)
def test_bars_of_other_work_are_not_trainings(log: Path, description: str) -> None:
    other = bar(132, 264, description) + bar(264, 264, description) + "\n"
    rows = "".join(f"{bar(n, 10)}\r{{'loss': 0.{n}}}\n{bar(n, 10)}" for n in (1, 2, 3))
    assert steps(parse(log, other + rows)) == [1, 2, 3]
    assert steps(parse(log, other + "***** Running training *****\n{'loss': 0.7}\n{'loss': 0.6}\n")) == [1, 2]


def test_evaluation_bars_count_to_another_total(log: Path) -> None:
    text = (
        f"{{'loss': 0.7}}\n{bar(5, 20)}{bar(1, 3)}{bar(2, 3)}{bar(3, 3)}\r{{'eval_loss': 0.69, 'epoch': 0.5}}\n"
        f"{bar(3, 3)}{bar(5, 20)}{bar(6, 20)}{{'loss': 0.6}}\n{bar(3, 3)}{bar(10, 20)}"
    )
    found = parse(log, text)
    assert steps(found) == [5, 10]
    assert steps(found, "eval_loss") == [5]
    assert values(found, "eval_epoch") == [0.5]


def test_a_bar_with_a_description_right_behind_a_row_is_not_trainings(log: Path) -> None:
    text = "".join(
        f"{{'loss': 0.7}}\n{bar(2, 3, 'Gathering: ')}{bar(3, 3, 'Gathering: ')}{bar(n, 20)}" for n in (5, 10)
    )
    assert steps(parse(log, text)) == [5, 10]


def test_an_evaluation_before_training_is_at_step_0(log: Path) -> None:
    text = (
        f"{bar(0, 20)}{bar(3, 3)}{{'eval_loss': 0.69}}\n{bar(3, 3)}{bar(0, 20)}{{'loss': 0.7}}\n{bar(1, 20)}"
    )
    found = parse(log, text)
    assert (steps(found, "eval_loss"), steps(found)) == ([0], [1])


def test_a_run_that_starts_again_is_another_attempt(log: Path) -> None:
    text = "".join(f"{{'loss': 0.{n}}}\n{bar(n, 10)}" for n in (1, 2, 3, 2, 3, 4))
    found = parse(log, text)
    assert (steps(found), found.attempts) == ([1, 2, 3, 4], 2)
    assert len(found.series.train.superseded_rows()) == 2


def test_a_second_run_to_another_total_is_followed(log: Path) -> None:
    first = "".join(f"{{'loss': 0.{n}}}\n{bar(n, 10)}" for n in (1, 2, 3))
    found = parse(
        log, first + "Traceback ...\n" + "".join(f"{{'loss': 0.{n}}}\n{bar(n, 20)}" for n in (3, 4))
    )
    assert (steps(found), found.attempts) == ([1, 2, 3, 4], 1)


@pytest.mark.parametrize("label", ["[rank0]: ", "[default0]:", "0: ", "node1: ", "gpu-a100-07.cluster3: "])
def test_bars_behind_the_label_of_a_process_or_host_are_trainings(log: Path, label: str) -> None:
    text = "".join(
        f"{label}{bar(n, 300)[1:]}\n{label}{{'loss': 0.5, 'grad_norm': 1.0}}\n{label}{bar(n, 300)[1:]}\n"
        for n in (3, 30, 150, 300)
    )
    found = parse(log, text)
    assert (steps(found), found.step_source) == ([3, 30, 150, 300], "progress bar")


@pytest.mark.parametrize("step", [3, 30, 300])
def test_a_bar_with_a_description_is_not_trainings_however_wide_its_percentage_is(
    log: Path, step: int
) -> None:
    found = parse(log, f"{{'loss': 0.5}}{bar(step, 300, 'Map: ')}\n{{'loss': 0.4}}\n")
    assert (steps(found), found.step_source) == ([1, 2], "counted")


def test_rows_of_ranks_whose_lines_come_in_blocks_are_one_run(log: Path) -> None:
    rows = [f"{{'loss': 0.{n}, 'step': {n}}}" for n in range(10, 90)]
    blocks = [rows[at : at + 5] for at in range(0, len(rows), 5)]
    text = "".join(f"{rank}: {row}\n" for block in blocks for rank in (2, 0, 1) for row in block)
    found = parse(log, text)
    assert steps(found) == list(range(10, 90))
    assert (found.attempts, len(found.series.train)) == (1, 80)


def test_rows_that_every_rank_prints_are_one_attempt(log: Path) -> None:
    found = parse(log, "".join(f"{{'loss': 0.{n}, 'step': {n}}}\n" * 8 for n in (1, 2, 3)))
    assert (steps(found), found.attempts) == ([1, 2, 3], 1)


def test_real_tqdm_output_gives_the_steps(log: Path) -> None:
    stream = io.StringIO()
    for _ in tqdm(range(8), desc="Map", file=stream, mininterval=0):
        pass
    with tqdm(total=6, file=stream, mininterval=0, dynamic_ncols=True) as training:
        for step in range(1, 7):
            training.update(1)
            training.write(str({"loss": f"{0.7 - step / 100:.4g}"}), file=stream)
            if step == 3:
                for _ in tqdm(range(4), leave=False, file=stream, mininterval=0):
                    pass
                training.write(str({"eval_loss": "0.5"}), file=stream)
    found = parse(log, stream.getvalue())
    assert (steps(found), steps(found, "eval_loss")) == ([1, 2, 3, 4, 5, 6], [3])
    assert values(found) == [0.69, 0.68, 0.67, 0.66, 0.65, 0.64]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("nan", np.nan), ("-nan", np.nan), ("NaN", np.nan), ("inf", np.inf), ("-inf", -np.inf),
        ("Infinity", np.inf), ("'nan'", np.nan), ("'-inf'", -np.inf), ("'0.6931'", 0.6931),
        ("'8.889e-07'", 8.889e-07), ("1", 1.0), ("-5.3e+02", -530.0),
    ],
)  # fmt: skip
def test_numbers_are_read_however_they_are_spelled(log: Path, written: str, meant: float) -> None:
    found = parse(log, f"{{'loss': {written}, 'grad_norm': 1.0}}\n")
    np.testing.assert_equal(values(found), [meant])
    assert found.lines_not_understood == 0


def test_colours_prefixes_and_windows_newlines_do_not_hide_a_row(log: Path) -> None:
    text = "\x1b[32m[rank0]:\x1b[0m \x1b[1m{'loss': 0.7}\x1b[0m\r\n2026-11-24 INFO {'loss': 0.6} done\r\n"
    assert values(parse(log, text)) == [0.7, 0.6]


def test_closing_summaries_and_other_dicts_are_no_rows(log: Path) -> None:
    text = "{'loss': 0.7}\n{'train_runtime': 12.0, 'train_loss': 0.5}\n{'model_type': 'qwen2'}\n{'a'}\n{}\n"
    found = parse(log, text)
    assert (len(found.series.train), found.lines_not_understood) == (1, 0)


def test_rows_that_are_broken_are_counted(log: Path) -> None:
    text = "{'loss': 0.7}\n{'loss': 0.6, 'grad_no\n{'loss': <Tensor at 0x7f>, 'note': 'x'}\n"
    found = parse(log, text)
    assert (values(found), found.lines_not_understood) == ([0.7], 2)


def test_a_line_of_100_mb_is_passed_over_in_bounded_memory(log: Path) -> None:
    with log.open("wb") as file:
        file.write(b"{'loss': 0.7}\n")
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b" {'loss': 9.9}\n{'loss': 0.6}\n")
    tracemalloc.start()
    with open_source(log) as source:
        found = read(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values(found) == [0.7, 0.6]
    assert peak < 16 << 20


def test_a_row_at_the_head_of_a_long_line_is_read(log: Path) -> None:
    found = parse(log, "{'loss': 0.7}" + "x" * 3 * MAX_SEGMENT_BYTES + "\n{'loss': 0.6}\n")
    assert values(found) == [0.7, 0.6]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"loading\ndone\n", "nothing to diagnose: it holds no row of metrics"),
        pytest.param(bytes(range(256)) * 100, "nothing to diagnose", id="binary"),
        pytest.param(b"\x7fELF" + bytes(5000), "nothing to diagnose", id="program"),
        (b'{"log_history": []}', "nothing to diagnose"),
        (b'{"log_history": {}}', "log_history: must be a list of rows, is a dict"),
        pytest.param(b"[" * 100_000, "nothing to diagnose", id="deep"),
    ],
)
def test_a_file_without_rows_is_one_line_for_the_user(log: Path, data: bytes, message: str) -> None:
    log.write_bytes(data)
    with pytest.raises(TelemetryError, match=message):
        open_log(log)


def test_what_is_not_there_or_no_log_is_one_line_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError, match="nowhere: cannot be read: No such file or directory"):
        open_log(tmp_path / "nowhere")
    with pytest.raises(TelemetryError, match="neither a run directory"):
        open_log(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b"{'loss': ", b"nan", b"}", b"{", b"'", b"\r", b"\n", bar(2, 10).encode(), b"{'loss': 1}"]),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_no_output_makes_the_reader_raise(tmp_path: Path, parts: list[bytes]) -> None:
    parse(tmp_path / "random.log", b"".join(parts))


HISTORY = [
    {"loss": 0.6931, "grad_norm": 3.25, "learning_rate": 1e-06, "rewards/chosen": 0.0, "epoch": 0.1, "step": 10},
    {"loss": 0.65, "grad_norm": float("nan"), "learning_rate": 2e-06, "rewards/chosen": 0.05, "epoch": 0.2, "step": 20},
    {"eval_loss": 0.64, "eval_rewards/margins": 0.1, "eval_runtime": 3.5, "epoch": 0.2, "step": 20},
    {"loss": 0.62, "grad_norm": float("inf"), "learning_rate": 3e-06, "rewards/chosen": 0.07, "epoch": 0.3, "step": 30},
    {"train_runtime": 99.0, "train_loss": 0.65, "step": 30},
]  # fmt: skip


def summary(log: ForeignLog) -> dict[str, tuple[list[int], list[str]]]:
    return {name: (steps(log, name), list(map(str, values(log, name)))) for name in log.series.names()}


def test_a_run_gives_the_same_metrics_as_trainer_state_and_as_output(tmp_path: Path) -> None:
    state = tmp_path / "trainer_state.json"
    state.write_text(json.dumps({"global_step": 30, "log_history": HISTORY}))
    printed = []
    for row in HISTORY:
        shown = {name: value for name, value in row.items() if name != "step"}
        printed.append(f"{bar(int(row['step']), 30)}\r{shown}\n{bar(int(row['step']), 30)}")
    from_state = open_log(state)
    from_output = parse(tmp_path / "train.log", "".join(printed))
    assert (from_state.format, from_output.format) == ("trainer_state", "stdout")
    expected = ForeignLog("", from_state.series)
    assert summary(from_output) == summary(expected)
    assert steps(expected) == [10, 20, 30]
    assert steps(expected, "eval_epoch") == [20]


def test_repeated_steps_of_a_trainer_state_are_superseded(tmp_path: Path) -> None:
    rows = [{"loss": float(n), "step": step} for n, step in enumerate((1, 2, 3, 2, 3, 4))]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    found = open_log(tmp_path)
    assert found.series.effective("loss").values.tolist() == [0.0, 3.0, 4.0, 5.0]
    assert found.attempts == 2


def test_rows_of_a_trainer_state_that_are_none_are_counted(tmp_path: Path) -> None:
    rows = [
        {"loss": 0.7, "step": 1},
        {"loss": 0.6},
        5,
        None,
        {"loss": 1, "step": "x"},
        {"loss": "x", "step": 2},
    ]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    found = open_log(tmp_path)
    assert found.series.effective("loss").steps.tolist() == [1]
    assert found.lines_not_understood == 4


def test_a_folder_whose_number_is_no_step_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("checkpoint-²", "checkpoint-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text('{"log_history": [{"loss": 0.5, "step": 7}]}')
    assert open_log(tmp_path).series.train.last_step() == 7


def test_a_folder_of_checkpoints_means_the_newest(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        state = {"log_history": [{"loss": 0.7, "step": step}]}
        (folder / "trainer_state.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(state).encode())
    (tmp_path / "checkpoint-best").mkdir()
    assert open_log(tmp_path).series.effective("loss").steps.tolist() == [100]
    assert open_log(tmp_path / "checkpoint-20").series.effective("loss").steps.tolist() == [20]
