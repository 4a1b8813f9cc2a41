"""From start to end with the real processes: keeper, agent, job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from dpo_daemon.summary import agent_of, ranks_of, read_summary
from dpo_telemetry import events, identity
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt, RunDirectory
from dpo_telemetry.writer import EventWriter

from .conftest import Home

Ended = Callable[[RunDirectory], HostExit]
EventsOf = Callable[[Attempt, str], list[events.AnyEvent]]
Eventually = Callable[..., Any]
LONG = {"STANDIN_STEPS": "10000"}


def training(run: RunDirectory) -> RunModel | None:
    model = read_run(run)
    return model if model.last_step > 0 else None


def test_a_run_goes_to_its_end_and_leaves_a_whole_record(
    home: Home, ended: Ended, events_of: EventsOf
) -> None:
    run = home.start(STANDIN_STEPS="30")
    assert (ended(run).code, ended(run).reason) == (0, "finished")
    attempt = run.attempts()[0]
    assert attempt.log_file(0).read_text().splitlines() == [f"step {step}" for step in range(1, 31)]
    agent = events_of(attempt, "agent-*")
    assert isinstance(agent[0], events.Start)
    hosts = [event for event in agent if isinstance(event, events.Host)]
    assert any("0" in host.rss_bytes for host in hosts)
    assert all(host.memory_available_bytes <= host.memory_total_bytes for host in hosts)
    rank, own = [event for event in agent if isinstance(event, events.Exit)]
    assert (rank.role, rank.rank, rank.code, own.role) == ("rank", 0, 0, "agent")


def test_the_keeper_sums_up_the_end_and_leaves(home: Home, ended: Ended, eventually: Eventually) -> None:
    run = home.new_run()
    subprocess.run(
        [sys.executable, "-m", "dpo_daemon.keeper", str(run.path), "--start", "--linger", "0.2"],
        check=True,
        timeout=60,
    )
    summary = read_summary(run)
    assert summary is not None
    assert (summary.state, summary.step, summary.max_steps, summary.eta_s) == ("finished", 5, 5, None)
    assert summary.metrics["rewards/margins"] == pytest.approx(0.05)
    assert not summary.keeper_alive()
    assert home.processes() == []
    assert "Traceback" not in run.keeper_log.read_text()


def test_stop_ends_the_run_after_its_step(home: Home, ended: Ended, eventually: Eventually) -> None:
    run = home.start(**LONG)
    eventually(lambda: training(run), "the first step")
    result = home.daemon("stop", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["ended"], answer["state"]) == (True, "stopped")
    assert ended(run).code == 0
    assert read_run(run).answers[0].ok


def test_a_sigterm_to_the_agent_ends_the_job_gracefully(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    run = home.start(**LONG)
    agent = agent_of(eventually(lambda: training(run), "the first step"))
    assert agent is not None
    os.kill(agent.pid, signal.SIGTERM)
    assert ended(run).reason.startswith("stopped at step")


def test_stop_now_ends_a_job_that_listens_to_nothing(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    run = home.start(STANDIN_DEAF="1", **LONG)
    eventually(lambda: training(run), "the first step")
    result = home.daemon("stop", "--now")
    assert result.returncode == 0, result.stderr
    assert (ended(run).signal, ended(run).reason) == ("SIGKILL", "stopped: killed (SIGKILL) as asked")


def test_a_stop_that_is_not_served_in_time_says_so(home: Home, eventually: Eventually) -> None:
    run = home.start(STANDIN_DEAF="1", **LONG)
    eventually(lambda: training(run), "the first step")
    result = home.daemon("stop", "--wait", "0.3")
    assert result.returncode == 1
    assert "asked to stop; still training" in result.stdout


def test_a_job_killed_from_outside_is_named_so(home: Home, ended: Ended, eventually: Eventually) -> None:
    run = home.start(**LONG)
    model = eventually(lambda: training(run), "the first step")
    os.kill(ranks_of(model, 1)[0].pid, signal.SIGKILL)
    assert ended(run).signal == "SIGKILL"
    assert "from outside" in ended(run).reason
    status = home.daemon("status", "--json")
    assert status.returncode == 1
    (alert,) = [a for a in json.loads(status.stdout)["alerts"] if a["code"] == "rank_died"]
    assert alert["message"].startswith("rank 0 died: killed (SIGKILL) from outside")


def test_what_the_job_leaves_behind_is_ended_with_it(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    run = home.start(STANDIN_ORPHAN="1", **LONG)
    model = eventually(lambda: training(run), "the first step")
    job = psutil.Process(ranks_of(model, 1)[0].pid)
    (orphan,) = job.children()
    assert os.getsid(orphan.pid) != os.getsid(job.pid)
    job.kill()
    ended(run)
    assert not orphan.is_running()


def test_a_job_that_fails_is_reported_by_its_own_error_line(home: Home) -> None:
    result = home.daemon("start", "--profile", home.profile, "--foreground", STANDIN_FAIL="2")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "data.name: no such file; name another" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_job_that_cannot_be_started_is_an_end_with_a_reason(home: Home, ended: Ended) -> None:
    run = home.new_run()
    code = """
import sys
from pathlib import Path
from dpo_daemon.agent import Agent
from dpo_telemetry.rundir.layout import RunDirectory

class Missing:
    ranks, is_rank = 1, True
    def command(self): return ["/no/such/launcher"]
    def environment(self): return {}

run = RunDirectory(Path(sys.argv[1]))
Agent(run, run.attempt(1), Missing()).work()
"""
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True, timeout=60)
    assert ended(run).code == 2
    assert "/no/such/launcher: the job cannot be started: No such file or directory" in ended(run).reason


def test_an_attempt_is_started_once(home: Home, ended: Ended, eventually: Eventually) -> None:
    run = home.start(**LONG)
    second = subprocess.run(
        [sys.executable, "-m", "dpo_daemon.agent", str(run.path), "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert "already has a writer" in second.stderr
    assert not run.attempts()[0].ended()


def test_an_agent_that_vanished_with_its_job_is_recorded_by_the_keeper(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    run = home.start(**LONG)
    model = eventually(lambda: training(run), "the first step")
    agent = agent_of(model)
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    os.kill(ranks_of(model, 1)[0].pid, signal.SIGKILL)
    assert "gone without a word" in ended(run).reason


def test_an_agent_that_went_before_its_first_event_is_recorded_by_the_keeper(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    run = home.new_run()
    run.attempt(1).event_file(f"agent-{identity.host_name()}").touch()
    with home.keeper(run):
        assert "gone without a word" in ended(run).reason


def test_a_state_directory_that_cannot_be_written_costs_only_the_register(home: Home, ended: Ended) -> None:
    state = home.path / "no-folder"
    state.touch()
    run = home.start(STANDIN_STEPS="3", XDG_STATE_HOME=str(state))
    assert ended(run).reason == "finished"
    (agent_log,) = run.attempt(1).logs_dir.glob("agent-*.log")
    assert "not in the register of live runs" in agent_log.read_text()


def test_an_agent_that_fails_records_that_and_leaves_nothing_running(home: Home, ended: Ended) -> None:
    run = home.new_run()
    code = """
import sys
from pathlib import Path
from dpo_daemon.agent import Agent
from dpo_telemetry.rundir.layout import RunDirectory

class Torn:
    ranks, is_rank = 1, True
    def command(self): return ["sleep", "600"]
    def environment(self): raise RuntimeError("no environment\\nat all")

run = RunDirectory(Path(sys.argv[1]))
Agent(run, run.attempt(1), Torn()).work()
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert ended(run).reason.startswith("the agent failed: RuntimeError: no environment")
    assert home.processes() == []


@pytest.mark.parametrize("how", [[], ["--now"]], ids=["stop", "stop --now"])
def test_a_stop_of_a_run_that_is_gone_with_its_keeper_records_the_end(
    home: Home, ended: Ended, eventually: Eventually, how: list[str]
) -> None:
    run = home.start(**LONG)
    eventually(lambda: training(run), "the first step")
    for process in home.processes():
        process.kill()
    eventually(lambda: not home.processes(), "all of them to be gone")
    assert not run.attempt(1).ended()
    result = home.daemon("stop", run.path, *how)
    assert result.returncode == 0, result.stderr
    assert "gone without a word" in result.stdout
    assert "gone without a word" in ended(run).reason


def test_a_stop_of_a_run_that_a_restart_of_the_host_ended_records_that(home: Home, ended: Ended) -> None:
    run = home.new_run()
    writer = EventWriter(run.attempt(1).event_file(f"agent-{identity.host_name()}"))
    fields = identity.writer_fields() | {"boot_id": "an earlier one"}
    writer.put(events.Start(**events.stamp(), **fields, role="agent"))
    writer.close()
    assert home.daemon("stop", run.path, "--now").returncode == 0
    assert "the host was restarted" in ended(run).reason


def test_a_stop_of_a_run_of_another_host_records_nothing(home: Home) -> None:
    run = home.new_run()
    writer = EventWriter(run.attempt(1).event_file("agent-elsewhere"))
    fields = identity.writer_fields() | {"boot_id": "its own", "host": "elsewhere"}
    writer.put(events.Start(**events.stamp(), **fields, role="agent"))
    writer.close()
    assert home.daemon("stop", run.path, "--now").returncode == 2
    assert home.daemon("stop", run.path, "--wait", "0").returncode == 0
    assert not run.attempt(1).ended()


def test_a_job_whose_agent_was_killed_can_still_be_stopped(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    run = home.start(STANDIN_DEAF="1", **LONG)
    agent = agent_of(eventually(lambda: training(run), "the first step"))
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    result = home.daemon("stop", run.path, "--now", "--wait", "30")
    assert result.returncode == 0, result.stderr
    assert ended(run).code is None


def test_foreground_prints_the_lines_and_the_end(home: Home) -> None:
    result = home.daemon("start", "--profile", home.profile, "--foreground")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line for line in lines if line.startswith("step ") and line[5:].isdigit()] == [
        f"step {n}" for n in range(1, 6)
    ]
    assert any(line.startswith("see it again") for line in lines)


def test_an_interrupted_foreground_run_is_saved_and_ended(
    home: Home, ended: Ended, eventually: Eventually
) -> None:
    command = [sys.executable, "-m", "dpo_daemon", "start", "--profile", str(home.profile), "--foreground"]
    with subprocess.Popen(
        command, env={**os.environ, **LONG}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step 3"):
            pass
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped at step" in output
