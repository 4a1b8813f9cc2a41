"""Ending a run: after the step that it is in, or now."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from dpo_daemon import exits
from dpo_daemon.errors import DaemonError
from dpo_daemon.summary import agent_of, identity_of, ranks_of
from dpo_telemetry import identity
from dpo_telemetry.identity import ProcessIdentity
from dpo_telemetry.reader.whole import read_run
from dpo_telemetry.rundir import control
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

POLL_INTERVAL_S = 0.1
SIGNAL_INTERVAL_S = 0.5
"""Between two SIGTERMs: of two that come at once, the kernel delivers one."""


def ask_to_stop(run: RunDirectory, attempt: Attempt) -> None:
    """Ask the ranks to save and end after their step, wherever they run.

    Raises:
        DaemonError: the request cannot be written.
    """
    try:
        control.submit(
            run, "stop", issuer=f"dpo-daemon stop ({identity.user_name()})", attempt=attempt.number
        )
    except OSError as error:
        raise DaemonError(f"{run.control_dir}: the request cannot be written: {error.strerror}") from None


def record_if_gone(run: RunDirectory, attempt: Attempt, reason: str = exits.GONE) -> bool:
    """Record the end of a job of this host whose agent and ranks are gone; False when that is not so.

    Raises:
        DaemonError: the end cannot be written.
    """
    starts = [
        process.start
        for process in read_run(run).processes.values()
        if process.start and process.attempt == attempt.number and process.start.role != "keeper"
    ]
    began = any(start.role == "agent" for start in starts)
    if not began or any(start.host != identity.host_name() for start in starts):
        return False
    # An agent writes its exit file before it goes, so only now is a missing one proof.
    if any(identity_of(start).alive() for start in starts) or attempt.ended():
        return False
    try:
        exits.record_for_agent(attempt, reason)
    except OSError as error:
        raise DaemonError(f"{attempt.path}: the end cannot be recorded: {error.strerror}") from None
    return True


def end_now(run: RunDirectory, attempt: Attempt, timeout_s: float) -> bool:
    """End the job on this host without saving; False when it has not ended in time.

    Raises:
        DaemonError: it runs on another host.
    """
    model = read_run(run)
    agent = agent_of(model)
    host = model.run.host if model.run else ""
    if agent is None or (agent.boot_id != identity.boot_id()):
        raise DaemonError(
            f"{run.path}: nothing of it runs on this host; run `dpo-daemon stop --now` on {host}"
        )
    deadline = time.monotonic() + timeout_s
    while not attempt.ended() and time.monotonic() < deadline:
        if agent.alive():
            _signal(agent, signal.SIGTERM)
        elif not record_if_gone(run, attempt, "stopped: killed (SIGKILL) as asked; its agent was gone"):
            for rank in ranks_of(model, attempt.number):
                _signal(rank, signal.SIGKILL)
        wait_for_end(attempt, SIGNAL_INTERVAL_S)
    return attempt.ended()


def wait_for_end(attempt: Attempt, timeout_s: float) -> bool:
    """Whether the attempt ends within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not attempt.ended():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def _signal(process: ProcessIdentity, number: signal.Signals) -> None:
    if process.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
