"""From a profile to a run that is served: check, plan, make the directory, start the keeper."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dpo_daemon import exits, preflight, processes
from dpo_daemon.checks import check_start
from dpo_daemon.errors import DaemonError
from dpo_profiles.data import SHIPPED
from dpo_profiles.errors import PlanUnavailableError
from dpo_profiles.load import load_profile
from dpo_profiles.plan.make import make_plan
from dpo_profiles.plan.report import Plan
from dpo_profiles.render import to_toml
from dpo_profiles.schema import Profile
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory


@dataclass(frozen=True)
class Prepared:
    """A profile that can be started here, unless something was found."""

    profile: Profile
    plan: Plan | None
    """None for a model whose architecture is not known; `note` then says so."""
    note: str = ""
    findings: tuple[preflight.Finding, ...] = ()
    """What the preflight has against it; not empty refuses the start."""

    @property
    def fits(self) -> bool:
        """Whether the plan stays within the GPU's memory, as far as there is a plan."""
        return self.plan is None or self.plan.fits


def prepare(
    profile_name: str, overrides: Sequence[str], forced: Collection[str] = (), *, dry_run: bool = False
) -> Prepared:
    """Load, plan and check; nothing is made yet.

    `forced` names checks of the preflight whose findings do not count. A dry run asks neither for
    GPUs nor for nodes. With findings, nobody asks whether local files are there: the profile has to change first.

    Raises:
        ProfileError: the profile is missing or invalid.
        DaemonError: it cannot be started here.
    """
    loaded = load_profile(profile_name, overrides)
    profile = with_absolute_paths(loaded)
    plan, note = _plan(profile)
    gpus = None if dry_run else preflight.gpu_count()
    candidate = preflight.Candidate(profile=profile, plan=plan, gpus=gpus)
    findings = tuple(f for f in preflight.preflight(candidate) if f.name not in forced)
    if not findings:
        check_start(_on_one_node(loaded) if dry_run else loaded, profile_name)
    return Prepared(profile, plan, note, findings)


def _on_one_node(profile: Profile) -> Profile:
    """What a dry run checks of a run on several nodes: the ranks of one can be launched wherever it is."""
    return msgspec.structs.replace(profile, engine=msgspec.structs.replace(profile.engine, nodes=1))


def _plan(profile: Profile) -> tuple[Plan | None, str]:
    """The plan, or why there is none."""
    try:
        return make_plan(profile), ""
    except PlanUnavailableError as error:
        return None, f"no memory plan: {error.message}"


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
