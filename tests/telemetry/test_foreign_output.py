"""Output in all its dirt: rows are found, and what is torn is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.read import read_foreign

from .foreign_logs import bar


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "slurm-4711.out"


def parse(path: Path, text: str) -> ForeignLog:
    path.write_text(text)
    found = read_foreign(path)
    assert found.format == "stdout"
    return found


def values(log: ForeignLog, name: str = "loss") -> list[float]:
    return [float(value) for value in log.series.effective(name).values]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("np.float64(0.5)", 0.5), ("numpy.float32(-536.0)", -536.0), ("np.float64(nan)", np.nan), ("array(0.5)", 0.5),
        ("array(0.5, dtype=float32)", 0.5), ("tensor(0.6931, device='cuda:0')", 0.6931), ("tensor(nan)", np.nan),
        ("tensor(-inf, device='cuda:0', dtype=torch.bfloat16)", -np.inf), ("tensor(1.)", 1.0),
        ("tensor(0.5, grad_fn=<MeanBackward0>)", 0.5), ("tensor([0.5])", 0.5), ("'0.6914'", 0.6914), ("'nan'", np.nan),
        ('"8.889e-07"', 8.889e-07), (".5", 0.5), ("1_000", 1000.0), ("+2", 2.0),
    ],
)  # fmt: skip
def test_numbers_are_read_however_libraries_spell_them(log: Path, written: str, meant: float) -> None:
    found = parse(log, f"{{'loss': {written}, 'grad_norm': np.float64(1.0), 'epoch': {written}}}\n")
    np.testing.assert_equal(values(found), [meant])
    np.testing.assert_equal(values(found, "epoch"), [meant])
    assert values(found, "grad_norm") == [1.0]
    assert found.lines_not_understood == 0


@pytest.mark.parametrize(
    "written", ["None", "True", "'high'", "<object object at 0x7f>", "[1, 2]", "{'a': 1, 'b': 2}"]
)
def test_what_is_no_number_is_left_out_of_its_row(log: Path, written: str) -> None:
    found = parse(log, f"{{'loss': 0.5, 'note': {written}, 'epoch': 1.5}}\n")
    assert found.series.names() == ["loss", "epoch"]
    assert (values(found, "epoch"), found.lines_not_understood) == ([1.5], 0)


def test_rows_as_json_are_rows(log: Path) -> None:
    found = parse(
        log, 'INFO {"loss": 0.7, "grad_norm": NaN, "step": 4}\nINFO {"loss": 0.6, "note": null, "step": 8}\n'
    )
    assert found.series.effective("loss").steps.tolist() == [4, 8]
    assert len(found.series.effective("grad_norm")) == 1


def test_a_warning_in_the_middle_of_a_row_does_not_cost_it(log: Path) -> None:
    found = parse(
        log,
        "{'loss': 0.7, 'grad_norm': 2.0, /opt/torch/utils.py:91: UserWarning: None of the inputs need it.\n"
        "  warnings.warn(\n'learning_rate': 1e-06, 'epoch': 0.1}\n{'loss': 0.6, 'grad_norm': 1.0}\n",
    )
    assert (values(found), found.lines_not_understood) == ([0.7, 0.6], 0)
    assert values(found, "learning_rate") == [1e-06]


def test_a_warning_in_front_of_a_row_on_its_line_does_not_hide_it(log: Path) -> None:
    found = parse(log, "UserWarning: use_reentrant {should} be set{'loss': 0.7}[W socket.cpp:436] warn\n")
    assert values(found) == [0.7]


def test_rows_that_ranks_print_into_each_other_are_counted(log: Path) -> None:
    found = parse(log, "{'loss': 0.7, 'grad_no{'loss': 0.6, 'epoch': 0.1}rm': 2.0}\n")
    assert (values(found), found.lines_not_understood) == ([0.6], 1)


def test_a_row_that_never_ends_is_counted_once(log: Path) -> None:
    torn = "{'loss': 0.6, 'grad_norm\n"
    found = parse(log, "{'loss': 0.7}\n" + torn + "line\n" * 30 + "{'loss': 0.5}\n" + torn)
    assert (values(found), found.lines_not_understood) == ([0.7, 0.5], 2)


@pytest.mark.parametrize("label", ["[rank{}]: ", "[default{}]:", "{}: ", "[{}]"])
def test_rows_that_other_ranks_repeat_are_one(log: Path, label: str) -> None:
    text = "".join(
        f"{label.format(rank)}{{'loss': {loss}}}\n" for loss in (0.7, 0.6, 0.5) for rank in range(4)
    )
    found = parse(log, text)
    assert found.series.effective("loss").steps.tolist() == [1, 2, 3]
    assert values(found) == [0.7, 0.6, 0.5]


@pytest.mark.parametrize("label", ["[{}00] ", "{}00: ", "1{}:30:02 INFO ", "[2026-11-24 1{}:00:00] "])
def test_a_number_in_front_of_a_row_need_not_be_a_rank(log: Path, label: str) -> None:
    found = parse(log, "".join(f"{label.format(n)}{{'loss': 0.{n}}}\n" for n in (1, 2, 3)))
    assert values(found) == [0.1, 0.2, 0.3]


def test_a_slurm_log_gives_its_rows(log: Path) -> None:
    banner = (
        "==========================================\nSLURM_JOB_ID = 4711\nSLURM_NODELIST = node[1-2]\n"
        "==========================================\n\n*****************************************\nSetting OMP_NUM_THREADS\n"
    )
    rows = "".join(f"{bar(n, 3)}\r{{'loss': 0.{n}, 'epoch': {n}}}\n{bar(n, 3)}" for n in (1, 2, 3))
    end = "slurmstepd: error: *** JOB 4711 ON node1 CANCELLED AT 2026-11-24T03:12:00 DUE TO TIME LIMIT ***\n"
    found = parse(log, banner + rows + "\n" + end)
    assert (found.step_source, found.lines_not_understood) == ("progress bar", 0)
    assert found.series.effective("loss").steps.tolist() == [1, 2, 3]


def test_a_hole_of_zeros_at_the_front_is_passed_over(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(40 << 20)
        file.seek(40 << 20)
        file.write(b"{'loss': 0.7}\n{'loss': 0.6}\n")
    assert values(read_foreign(log)) == [0.7, 0.6]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1"])
def test_the_encoding_of_a_log_is_no_trouble(log: Path, encoding: str) -> None:
    log.write_bytes("Schöne Größe\r\n{'loss': 0.7}\r\n{'loss': 0.6}\r\n".encode(encoding))
    assert values(read_foreign(log)) == [0.7, 0.6]


def test_no_name_steers_a_terminal(log: Path) -> None:
    found = parse(
        log, "{'loss': 0.7, 'rewards/\\x1b[2J\\u202eevil': 1.0, 'rewards/\x1b[31mred\x1b[0m': 2.0}\n"
    )
    assert found.series.names() == ["loss", "rewards/ evil", "rewards/red"]


def test_a_printed_config_is_no_row(log: Path) -> None:
    found = parse(log, "{'learning_rate': 1e-06, 'beta': 0.1, 'epochs': 3}\n{'loss': 0.7}\n")
    assert (values(found), found.series.names()) == ([0.7], ["loss"])
