"""Several ranks on one host: real launchers, started by the real agent, over the stand-in job."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dpo_daemon.errors import DaemonError
from dpo_daemon.launch import check_backend, launcher_for
from dpo_daemon.summary import agent_of, ranks_of
from dpo_profiles.load import parse_resolved
from dpo_telemetry import events
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

from .conftest import Home

Ended = Callable[[RunDirectory], HostExit]
EventsOf = Callable[[Attempt, str], list[events.AnyEvent]]
Eventually = Callable[..., Any]
LONG = {"STANDIN_STEPS": "10000"}
TWO_RANKS = """\
name = "tiny"
[model]
base = "nobody/tiny-model"
compute_dtype = "float32"
[quantization]
storage_dtype = "float32"
[engine]
backend = "BACKEND"
gpus_per_node = 2
accelerate_file = "FILE"
"""
ACCELERATE = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: 'no'
num_machines: 1
num_processes: 2
rdzv_backend: static
use_cpu: false
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: Qwen2DecoderLayer
"""


@pytest.fixture
def two_ranks(home: Home) -> Iterator[Home]:
    """A home whose profile has two ranks under torchrun."""
    home.profile.write_text(TWO_RANKS.replace("BACKEND", "ddp").replace("FILE", ""))
    yield home
    for process in home.processes():
        process.kill()


def stepped(run: RunDirectory) -> RunModel | None:
    """The run once both ranks have made a step."""
    model = read_run(run)
    both = all(run.attempt(1).log_file(rank).exists() for rank in (0, 1))
    return model if model.last_step > 1 and both and len(ranks_of(model, 1)) == 2 else None


def rank_exits(attempt: Attempt, events_of: EventsOf) -> list[events.Exit]:
    """The agent's word on each rank."""
    written = events_of(attempt, "agent-*")
    return [event for event in written if isinstance(event, events.Exit) and event.role == "rank"]


def alerts(attempt: Attempt, events_of: EventsOf) -> list[events.Alert]:
    return [event for event in events_of(attempt, "agent-*") if isinstance(event, events.Alert)]


def pid_of(run: RunDirectory, rank: int) -> int:
    start = next(p.start for p in read_run(run).processes.values() if p.rank == rank and p.start)
    return start.pid


def sigterms(attempt: Attempt, rank: int) -> int:
    return attempt.log_file(rank).read_text().splitlines().count("SIGTERM")


def test_ranks_go_to_their_end_each_with_a_log_and_a_word_of_its_own(
    two_ranks: Home, ended: Ended, events_of: EventsOf
) -> None:
    (two_ranks.path / "dpo_trainer.py").write_text("raise SystemExit('shadowed by the working directory')")
    run = two_ranks.start(STANDIN_STEPS="3")
    assert (ended(run).code, ended(run).reason) == (0, "finished")
    attempt = run.attempt(1)
    for rank in (0, 1):
        assert attempt.log_file(rank).read_text().splitlines() == ["step 1", "step 2", "step 3"]
    assert [(e.rank, e.code, e.reason) for e in rank_exits(attempt, events_of)] == [
        (0, 0, "finished"), (1, 0, "finished"),
    ]  # fmt: skip
    assert alerts(attempt, events_of) == []
    (launcher_log,) = attempt.logs_dir.glob("launcher-*.log")
    assert "OMP_NUM_THREADS" not in launcher_log.read_text()


def test_ranks_meet_on_the_loopback_and_each_hears_of_a_stop_once(
    two_ranks: Home,
    ended: Ended,
    eventually: Eventually,
    events_of: EventsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    # What a shell inside another job has, which must not reach ours.
    monkeypatch.setenv("MASTER_ADDR", "198.51.100.7")
    monkeypatch.setenv("PET_NNODES", "3")
    # Long enough that a second signal would still find the rank in its step.
    run = two_ranks.start(STANDIN_STEP_S="0.5", **LONG)
    agent = agent_of(eventually(lambda: stepped(run), "steps of both ranks"))
    assert agent is not None
    seen = psutil.Process(pid_of(run, 1)).environ()
    assert [seen[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")] == list("1122")
    assert (seen["MASTER_ADDR"], seen["PYTHONSAFEPATH"]) == ("127.0.0.1", "1")
    # torchrun's own grace of 30 s is shorter than a large model's step.
    assert int(seen["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) > 600
    assert int(seen["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)
    os.kill(agent.pid, signal.SIGTERM)
    attempt = run.attempt(1)
    assert ended(run).code == 0
    assert ended(run).reason.startswith("stopped at step")
    assert [sigterms(attempt, rank) for rank in (0, 1)] == [1, 1]
    assert [e.code for e in rank_exits(attempt, events_of)] == [0, 0]


def test_stop_now_ends_ranks_that_listen_to_nothing(
    two_ranks: Home, ended: Ended, eventually: Eventually, events_of: EventsOf
) -> None:
    run = two_ranks.start(STANDIN_DEAF="1", **LONG)
    eventually(lambda: stepped(run), "steps of both ranks")
    ranks = [psutil.Process(pid_of(run, rank)) for rank in (0, 1)]
    result = two_ranks.daemon("stop", "--now")
    assert result.returncode == 0, result.stderr
    assert ended(run).reason == "stopped: killed (SIGKILL) as asked"
    assert alerts(run.attempt(1), events_of) == []
    assert not any(rank.is_running() for rank in ranks)


def test_a_killed_rank_is_the_cause_and_an_alert(
    two_ranks: Home, ended: Ended, eventually: Eventually, events_of: EventsOf
) -> None:
    run = two_ranks.start(**LONG)
    eventually(lambda: stepped(run), "steps of both ranks")
    os.kill(pid_of(run, 1), signal.SIGKILL)
    end = ended(run)
    assert (end.code, end.signal) == (None, "SIGKILL")
    assert end.reason.startswith("rank 1: killed (SIGKILL) from outside")
    first, second = rank_exits(run.attempt(1), events_of)
    assert (first.rank, first.code, first.reason) == (0, 70, "ConnectionResetError: Connection reset by peer")
    assert (second.rank, second.code, second.signal) == (1, None, "SIGKILL")
    (alert,) = alerts(run.attempt(1), events_of)
    assert (alert.code, alert.severity) == ("rank_died", "critical")
    assert "rank 1 died: killed (SIGKILL)" in alert.message
    status = json.loads(two_ranks.daemon("status", run.path, "--json").stdout)
    assert (status["state"], status["reason"]) == ("failed", end.reason)
    assert "rank_died" in [alert["code"] for alert in status["alerts"]]


def test_a_rank_that_fails_is_named_with_its_reason_and_its_code(
    two_ranks: Home, ended: Ended, events_of: EventsOf
) -> None:
    run = two_ranks.start(STANDIN_BROKEN_RANK="1", **LONG)
    assert (ended(run).code, ended(run).reason) == (70, "rank 1: ValueError: this rank is broken")
    assert alerts(run.attempt(1), events_of) == []


def test_ranks_that_are_refused_end_with_their_own_code_and_line(two_ranks: Home) -> None:
    result = two_ranks.daemon("start", "--profile", two_ranks.profile, "--foreground", STANDIN_FAIL="2")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "data.name: no such file; name another" in line


def test_ranks_whose_launcher_was_killed_save_and_end(
    two_ranks: Home, ended: Ended, eventually: Eventually, events_of: EventsOf
) -> None:
    run = two_ranks.start(**LONG)
    eventually(lambda: stepped(run), "steps of both ranks")
    ranks = [psutil.Process(pid_of(run, rank)) for rank in (0, 1)]
    launcher = ranks[0].parent()
    assert launcher is not None
    assert os.getsid(ranks[0].pid) != os.getsid(launcher.pid)
    launcher.kill()
    end = ended(run)
    assert (end.code, end.signal) == (None, "SIGKILL")
    assert "the launcher was killed (SIGKILL) from outside" in end.reason
    assert "the ranks then ended: stopped at step" in end.reason
    assert [sigterms(run.attempt(1), rank) for rank in (0, 1)] == [1, 1]
    # Asked as in any stop, with the time that takes, and not swept up as what a job leaves behind.
    (agent_log,) = run.attempt(1).logs_dir.glob("agent-*.log")
    assert "2 ranks are asked to end" in agent_log.read_text()
    assert not any(rank.is_running() for rank in ranks)
    assert [e.code for e in rank_exits(run.attempt(1), events_of)] == [0, 0]


def test_ranks_whose_launcher_was_killed_can_be_ended_at_once(
    two_ranks: Home, ended: Ended, eventually: Eventually
) -> None:
    run = two_ranks.start(STANDIN_DEAF="1", **LONG)
    eventually(lambda: stepped(run), "steps of both ranks")
    ranks = [psutil.Process(pid_of(run, rank)) for rank in (0, 1)]
    launcher = ranks[0].parent()
    assert launcher is not None
    launcher.kill()
    result = two_ranks.daemon("stop", "--now")
    assert result.returncode == 0, result.stderr
    assert ended(run).signal == "SIGKILL"
    assert not any(rank.is_running() for rank in ranks)


def test_the_log_of_a_rank_and_without_any_that_of_the_launcher(home: Home) -> None:
    run = home.new_run()
    attempt = run.attempt(1)
    attempt.launcher_log("node-1").write_text("no module named torch\n")
    attempt.exit_file("node-1").write_text("{}")
    assert home.daemon("logs", run.path).stdout == "no module named torch\n"
    assert home.daemon("logs", "-f", run.path).stdout == "no module named torch\n"
    attempt.log_file(0).write_text("rank 0\n")
    attempt.log_file(1).write_text("rank 1\n")
    assert home.daemon("logs", run.path).stdout == "rank 0\n"
    assert home.daemon("logs", "-f", run.path).stdout == "rank 0\n"
    assert home.daemon("logs", run.path, "--rank", "1").stdout == "rank 1\n"


def test_accelerate_starts_the_ranks_with_its_file_unchanged(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    file = home.path / "fsdp2.yaml"
    file.write_text(ACCELERATE)
    home.profile.write_text(TWO_RANKS.replace("BACKEND", "fsdp2").replace("FILE", str(file)))
    run = home.start(**LONG)
    eventually(lambda: stepped(run), "steps of both ranks")
    seen = psutil.Process(pid_of(run, 1)).environ()
    assert (seen["RANK"], seen["WORLD_SIZE"]) == ("1", "2")
    assert seen["MASTER_ADDR"] == "127.0.0.1"
    assert (seen["ACCELERATE_USE_FSDP"], seen["FSDP_VERSION"]) == ("true", "2")
    assert seen["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "Qwen2DecoderLayer"
    assert seen["PYTHONSAFEPATH"] == "1"
    assert home.daemon("stop").returncode == 0
    assert ended(run).reason.startswith("stopped at step")
    assert file.read_text() == ACCELERATE


@pytest.mark.parametrize(
    ("backend", "file", "program"),
    [
        ("single", "", "dpo_trainer"),
        ("ddp", "", "torch.distributed.run"),
        ("deepspeed-zero3", "", "torch.distributed.run"),
        ("fsdp2", "", "torch.distributed.run"),
        ("fsdp2", "/x.yaml", "accelerate.commands.launch"),
        ("fsdp", "/x.yaml", "accelerate.commands.launch"),
    ],
)
def test_each_backend_has_its_launcher(tmp_path: Path, backend: str, file: str, program: str) -> None:
    profile = parse_resolved(TWO_RANKS.replace("BACKEND", backend).replace("FILE", file), "x")
    run = RunDirectory(tmp_path)
    command = list(launcher_for(profile, run, run.attempt(1)).command())
    assert command[1:4] == ["-P", "-m", program]
    assert command[-2:] == [str(tmp_path), "1"]


def test_ranks_on_several_hosts_are_refused_in_one_line() -> None:
    text = TWO_RANKS.replace("BACKEND", "ddp").replace("FILE", "") + "nodes = 2\n"
    with pytest.raises(DaemonError, match=r"^mine\.toml: engine\.nodes: is 2, .*one host only"):
        check_backend(parse_resolved(text, "mine.toml"), "mine.toml")
