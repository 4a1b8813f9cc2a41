"""`dpo-daemon plan` as its user sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dpo_daemon.cli import daemon
from dpo_daemon.plans.draw import LETTERS, alike, print_plan
from dpo_profiles.load import load_profile
from dpo_profiles.plan import Plan, make_plan
from dpo_profiles.plan.report import ALLOCATED, COMPONENTS
from dpo_telemetry.cli import exit_code_of

Run = Callable[..., tuple[int, str, str]]
STUB = Path(__file__).with_name("nvml_stub.c")
HERE = 'import sys; from dpo_daemon.cli import main; sys.argv[1:] = ["plan", "--profile", "single", "--gpu", "here", *sys.argv[1:]]; main()'


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def plan(*arguments: str) -> tuple[int, str, str]:
        code = exit_code_of(daemon, "dpo-daemon", ["plan", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return plan


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rich takes for a terminal of 80 columns with colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def refused(answer: tuple[int, str, str]) -> str:
    code, out, err = answer
    assert (code, out, err.count("\n")) == (2, "", 1), answer
    return err


def plain(text: str) -> str:
    return "".join(
        part.partition("m")[2] if index else part for index, part in enumerate(text.split("\x1b["))
    )


@pytest.mark.parametrize("options", [[], ["--fit"], ["--explain", "activations"]])
def test_a_plan_loads_neither_numpy_nor_the_wire(options: list[str]) -> None:
    code = (
        "import sys\nfrom dpo_daemon.cli import daemon\n"
        f"daemon.main(['plan', '--profile', 'zero3', *{options!r}], standalone_mode=False)\n"
        "print([m for m in ('numpy', 'zmq', 'pynvml', 'dpo_telemetry.reader', 'torch') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("name", ["zero3", "full-70b", "demo", "single"])
def test_on_80_columns_nothing_wraps_but_prose(run: Run, name: str) -> None:
    _, out, _ = run("--profile", name)
    lines = plain(out).splitlines()
    assert "\x1b[" in out
    assert max(map(len, lines)) <= 80
    assert "…" not in out
    (bar,) = (line for line in lines if line.startswith("▕"))
    assert bar.endswith("▏")
    assert sum(line.split()[:1] == ["backward"] for line in lines) == 1


def test_where_there_is_no_terminal_letters_stand_for_colours(run: Run) -> None:
    _, out, _ = run("--profile", "zero3")
    assert "\x1b" not in out
    (bar,) = (line for line in out.splitlines() if line.startswith("▕"))
    rank = make_plan(load_profile("zero3")).per_gpu[0]
    cells = len(bar) - 2
    capacity = 85_520_809_984
    assert len(bar.strip("▕▏·")) == round(rank.peak_allocated_bytes / capacity * cells)
    share = rank.phases["backward"]["policy_weights"] / capacity * cells
    assert bar.count(LETTERS[ALLOCATED.index("policy_weights")]) == pytest.approx(share, abs=1)
    (band,) = (line for line in out.splitlines() if "├" in line)
    assert band.index("├") - 1 == pytest.approx(rank.nvml_bytes.low / capacity * cells, abs=1)
    assert band.index("┤") == pytest.approx(rank.nvml_bytes.high / capacity * cells, abs=1)


def test_the_phases_are_a_table_in_gib_with_the_peak_marked(run: Run) -> None:
    _, out, _ = run("--profile", "zero3")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    phases = make_plan(load_profile("zero3")).per_gpu[0].phases
    for phase, parts in phases.items():
        assert float(rows[phase][-1]) == pytest.approx(sum(parts.values()) / 2**30, abs=0.006)
    assert [phase for phase in phases if "peak" in rows[phase]] == ["backward"]
    assert "each of 8 GPUs" in out


def test_a_plan_over_its_card_marks_the_capacity_and_says_what_would_fit(run: Run) -> None:
    code, out, _ = run("--profile", "full-70b")
    assert code == 1
    assert "▲ capacity" in out
    assert "29.9 GiB too little" in out
    assert "does not fit" in out


def uneven() -> Plan:
    plan = make_plan(load_profile("zero3"))
    last = msgspec.structs.replace(plan.per_gpu[7], resident_bytes=plan.per_gpu[7].resident_bytes + 1)
    return msgspec.structs.replace(plan, per_gpu=[*plan.per_gpu[:7], last])


def test_gpus_that_differ_have_a_bar_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert [[rank.rank for rank in group] for group in alike(uneven().per_gpu)] == [
        [0, 1, 2, 3, 4, 5, 6],
        [7],
    ]
    print_plan(uneven())
    out = capsys.readouterr().out
    assert out.count("▕") == 2
    assert "GPU 0, 1, 2, 3, 4, 5, 6 " in out
    assert "GPU 7 " in out


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_is_explained_with_numbers_and_source(run: Run, component: str) -> None:
    code, out, _ = run("--profile", "zero3", "--explain", component)
    assert code == 0
    if component == "reference_weights":
        assert "reference_weights is 0 in every phase" in out
    else:
        assert "    = " in out
        assert "    source: " in out


def test_an_explanation_in_json_stands_beside_the_plan(run: Run) -> None:
    _, out, _ = run("--profile", "zero3", "--explain", "gradients", "--json")
    entries = json.loads(out)["explain"]
    assert {entry["part"] for entry in entries} == {"gradients"}
    assert "fit" not in json.loads(out)


def test_another_card_by_name(run: Run) -> None:
    code, out, _ = run("--profile", "single", "--gpu", "rtx 4090", "--json")
    answer = json.loads(out)
    assert answer["gpu"] == {"name": "NVIDIA GeForce RTX 4090", "capacity_bytes": 25_757_220_864}
    assert code == (0 if answer["fits"] else 1)
    assert not any("nominal" in line for line in answer["advice"])
    for options in ([], ["--fit"]):
        _, out, _ = run("--profile", "single", "--gpu", "V100 32GB", *options)
        assert "Tesla V100-SXM2-32GB: nominal" in out


def stubbed(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HERE, "--json"],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.system("gcc")
def test_the_cards_that_are_here_are_read_from_nvml(tmp_path: Path) -> None:
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", library, STUB,
         "-Wl,-soname,libnvidia-ml.so.1"],
        check=True,
    )  # fmt: skip
    result = stubbed(tmp_path)
    assert json.loads(result.stdout)["gpu"] == {
        "name": "NVIDIA H100 80GB HBM3",
        "capacity_bytes": 85_520_809_984,
    }
    silent = stubbed(tmp_path, STUB_NO_MEMORY="1")
    assert silent.returncode == 2
    assert silent.stderr.startswith("error: --gpu here: NVML shows no GPU ")


def test_a_search_ranks_what_fits(run: Run) -> None:
    code, out, _ = run("--profile", "zero3", "--fit", "--json")
    answer = json.loads(out)
    assert code == 0
    assert all(
        set(choice) == {"set", "headroom_bytes", "cost", "fits", "engine_file", "offload", "why"}
        | {"reshard_after_forward", "host_ram_bytes", "steps_up"}
        for choice in answer["fit"]
    )  # fmt: skip
    assert all(choice["fits"] for choice in answer["fit"])
    _, text, _ = run("--profile", "zero3", "--fit")
    assert text.count("next step up: micro_batch_pairs ") == len(answer["fit"])
    assert "GiB too much" in text
    assert "nothing was measured" in text
    assert "fastest" not in text


def test_a_search_that_finds_nothing_is_bad_news_with_the_smallest_change(run: Run) -> None:
    code, out, _ = run("--profile", "full-70b", "--fit")
    assert code == 1
    assert "none of " in out
    assert "the smallest change that would make the first of them fit: 16 GPUs with fsdp2" in out
    code, out, _ = run("--profile", "full-70b", "--fit", "--json")
    assert (code, [choice["fits"] for choice in json.loads(out)["fit"]]) == (1, [False] * 10)


@pytest.mark.usefixtures("terminal")
def test_a_search_fits_on_80_columns_but_for_what_is_to_be_copied(run: Run) -> None:
    _, out, _ = run("--profile", "zero3", "--fit")
    lines = plain(out).splitlines()
    assert max(len(line) for line in lines if not line.startswith("    --set ")) <= 80
    assert any(line.startswith("    --set ") for line in lines)


CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, "'mamba' is not counted, so there is no plan; known are "),
        ({"hidden_size": 65}, "65 does not divide by num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "4 does not divide by num_key_value_heads 3"),
        ({"vocab_size": 0}, "vocab_size: is 0; sizes are 1 or more"),
    ],
)
def test_a_config_that_cannot_be_counted_is_named(
    run: Run, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **change}))
    for options in ([], ["--fit"], ["--explain", "activations"]):
        assert said in refused(run("--profile", "single", "--set", f"model.base={tmp_path}", *options))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "H1000"], "--gpu: no card 'H1000' is known; did you mean H100 80GB"),
        (
            ["--explain", "weights"],
            "--explain: 'weights' is no component; the components are policy_weights, ",
        ),
        (["--fit", "--reserve", "lots"], "--reserve: 'lots' is no reserve; give "),
        (
            ["--fit", "--set", "hardware.capacity_bytes=0", "--set", "hardware.gpu="],
            "hardware.capacity_bytes: is 0, so nothing can be fitted",
        ),
        (
            ["--set", "hardware.capacity_bytes=0"],
            "hardware.capacity_bytes: is 0 but hardware.gpu names NVIDIA H100 80GB HBM3; give the bytes",
        ),
        (["--fit", "--explain", "activations"], "--fit and --explain are two questions"),
        (["--reserve", "10%"], "--reserve is read with --fit only"),
        (["--set", "engine.gpus_per_node=2"], "engine.backend: is single but nodes x gpus_per_node is 1 x 2"),
        (["--set", 'adapter.target_modules=["nope"]'], "has no layer 'nope'"),
        (["--set", "model.base=nobody/nothing"], "no config.json of 'nobody/nothing' is on this machine"),
    ],
)
def test_a_wrong_question_is_answered_in_one_line(run: Run, arguments: list[str], said: str) -> None:
    assert said in refused(run("--profile", "single", *arguments))


def test_an_engine_file_that_contradicts_the_profile_is_shown_with_both_values(run: Run) -> None:
    said = refused(run("--profile", "zero3", "--set", "train.micro_batch_pairs=2"))
    assert (
        "zero3.deepspeed.json has train_micro_batch_size_per_gpu 1 but train.micro_batch_pairs is 2" in said
    )


def test_without_a_capacity_nothing_is_compared_and_that_is_said(run: Run) -> None:
    code, out, _ = run("--profile", "demo")
    assert code == 0
    assert "hardware.capacity_bytes is 0, so nothing was compared" in out
    assert "headroom" not in out
