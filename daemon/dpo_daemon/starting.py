"""From a profile to a run that is served: check, plan, make the directory, start the keeper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dpo_daemon import exits, processes
from dpo_daemon.checks import check_start
from dpo_daemon.errors import DaemonError
from dpo_profiles.errors import PlanUnavailableError
from dpo_profiles.load import load_profile
from dpo_profiles.plan.make import make_plan
from dpo_profiles.plan.report import Plan
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory

SHIPPED = "shipped"
"""`data.name` of the pairs that come with the package, whatever lies in the working directory."""


@dataclass(frozen=True)
class Prepared:
    """A profile that can be started here."""

    profile: Profile
    plan: Plan | None
    """None for a model whose architecture is not known; `note` then says so."""
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether the plan stays within the GPU's memory, as far as there is a plan."""
        return self.plan is None or self.plan.fits


def prepare(profile_name: str, overrides: Sequence[str]) -> Prepared:
    """Load, check and plan; nothing is made yet.

    Raises:
        ProfileError: the profile is missing or invalid.
        DaemonError: it cannot be started here.
    """
    profile = load_profile(profile_name, overrides)
    check_start(profile, profile_name)
    profile = with_absolute_paths(profile)
    try:
        return Prepared(profile, make_plan(profile))
    except PlanUnavailableError as error:
        return Prepared(profile, None, f"no memory plan: {error.message}")


def with_absolute_paths(profile: Profile) -> Profile:
    """Local paths made absolute, so that a later attempt finds them from any working directory."""
    replace = msgspec.structs.replace
    return replace(
        profile,
        model=replace(profile.model, base=_absolute(profile.model.base)),
        adapter=replace(profile.adapter, path=_absolute(profile.adapter.path)),
        data=replace(profile.data, name=_absolute(profile.data.name)),
    )


def _absolute(value: str) -> str:
    path = Path(os.path.expanduser(value))
    return str(path.absolute()) if value and value != SHIPPED and path.exists() else value


def start(prepared: Prepared, runs_dir: Path) -> RunDirectory:
    """Make the run and start keeper and job; returns once clients are served.

    Raises:
        TelemetryError: the runs directory cannot be written.
        DaemonError: the keeper or the agent did not start; the attempt's record says so too.
    """
    run = create_run(runs_dir, prepared.profile.name)
    plan = prepared.plan.to_json() if prepared.plan is not None else b"{}"
    attempt = create_attempt(run, to_toml(prepared.profile, comments=False), plan)
    try:
        processes.start_detached("dpo_daemon.keeper", [str(run.path), "--start"])
    except DaemonError as error:
        if not attempt.ended() and not any(attempt.events_dir.glob("agent-*")):
            exits.record_for_agent(attempt, f"the keeper did not start: {error.message}")
        raise
    return run
