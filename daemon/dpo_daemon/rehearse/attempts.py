"""One attempt of a rehearsal, started as any run is and followed to its end."""

from __future__ import annotations

import time
from collections.abc import Callable

from dpo_daemon import processes
from dpo_daemon.stopping import end_now
from dpo_daemon.summary import read_summary
from dpo_profiles.errors import PlanUnavailableError
from dpo_profiles.plan.make import make_plan
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Profile
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.reader.status import status_of
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.rundir.layout import Attempt, RunDirectory

POLL_INTERVAL_S = 0.2
END_TIMEOUT_S = 60.0

Tell = Callable[[str], None]
"""Takes what is being done, to show it."""


def run_attempt(run: RunDirectory, profile: Profile, limit_s: float, tell: Tell) -> tuple[Attempt, str]:
    """Start the next attempt and wait for its end, and for its keeper's; ended after `limit_s` seconds.

    The text says where it stood when it was ended for that, and is empty otherwise.

    Raises:
        DaemonError: keeper or agent do not start.
        KeyboardInterrupt: the attempt is ended before that goes on.
    """
    attempt = create_attempt(run, to_toml(profile, comments=False), _plan_json(profile))
    processes.start_detached("dpo_daemon.keeper", [str(run.path), "--start", "--linger", "0"])
    try:
        overdue = _follow(run, attempt, limit_s, tell)
    except KeyboardInterrupt:
        end_now(run, attempt, END_TIMEOUT_S)
        # Whoever removes the run next must not take it away from under its keeper.
        _wait_for_keeper(run)
        raise
    return attempt, overdue


def _follow(run: RunDirectory, attempt: Attempt, limit_s: float, tell: Tell) -> str:
    source, model = DirectorySource(run), RunModel()
    deadline, overdue = time.monotonic() + limit_s, ""
    while not attempt.ended():
        if time.monotonic() > deadline:
            overdue = _standing(model)
            end_now(run, attempt, END_TIMEOUT_S)
            break
        model.apply(source.poll())
        tell(_standing(model))
        time.sleep(POLL_INTERVAL_S)
    _wait_for_keeper(run)
    return overdue


def _wait_for_keeper(run: RunDirectory) -> None:
    deadline = time.monotonic() + END_TIMEOUT_S
    while (summary := read_summary(run)) and summary.keeper_alive() and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)


def _standing(model: RunModel) -> str:
    status = status_of(model, time.time())
    step = f", step {model.last_step} of {model.max_steps}" if model.last_step else ""
    number = model.attempt.number if model.attempt else 1
    return f"attempt {number}: {status.state}{step}"


def _plan_json(profile: Profile) -> bytes:
    """The small model's own plan, which the ranks hold their bytes against."""
    try:
        return make_plan(profile).to_json()
    except PlanUnavailableError:
        return b"{}"
