"""`dpo-daemon plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from dpo_daemon.cli.options import json_option, print_json, run_argument, runs_dir_option, set_option
from dpo_daemon.plans.cards import with_card
from dpo_daemon.plans.draw import print_plan
from dpo_profiles.load import load_profile
from dpo_profiles.plan.make import make_plan
from dpo_profiles.plan.report import Plan
from dpo_profiles.schema import Profile

DEFAULT_RESERVE = "10%"


@click.command("plan")
@run_argument
@click.option("--profile", "profile_name", metavar="NAME|FILE", help="A shipped profile, or a TOML file.")
@set_option
@runs_dir_option
@click.option(
    "--gpu", "card", metavar="NAME", help="Plan for another card; `here` asks this machine's driver."
)
@click.option("--explain", "component", metavar="COMPONENT", help="Show the formula behind each part of it.")
@click.option("--fit", "wants_fit", is_flag=True, help="Search for settings that fit, and rank them.")
@click.option(
    "--reserve",
    metavar="SIZE",
    help=f"With --fit: memory that stays free, as 10%, 8GiB or 512MiB; else {DEFAULT_RESERVE}.",
)
@json_option
def command(
    run_text: str | None,
    profile_name: str | None,
    overrides: tuple[str, ...],
    runs_dir: Path | None,
    card: str | None,
    component: str | None,
    wants_fit: bool,
    reserve: str | None,
    as_json: bool,
) -> None:
    """Show what a profile should cost in memory, on each GPU and by component.

    Exit code 1 when it does not fit the GPU; with --fit, when no setting does. With RUN in place of
    --profile: what was planned for it beside what its ranks measured.

    \b
    Examples:
      dpo-daemon plan --profile zero3
      dpo-daemon plan --profile zero3 --set adapter.r=64 --json
      dpo-daemon plan --profile single --gpu "RTX 4090"
      dpo-daemon plan --profile single --gpu here
      dpo-daemon plan --profile zero3 --explain activations
      dpo-daemon plan --profile zero3 --gpu "A100 40GB" --fit --reserve 15%
      dpo-daemon plan 20261124-0312-zero3
    """
    if profile_name is None:
        if run_text is None or overrides or card or component or wants_fit or reserve:
            raise click.UsageError("Give --profile NAME|FILE, or the name of a run and nothing else.")
        _compare(run_text, runs_dir, as_json)
        return
    if run_text is not None:
        raise click.UsageError("RUN and --profile are two questions; ask one at a time.")
    if wants_fit and component is not None:
        raise click.UsageError("--fit and --explain are two questions; ask one at a time.")
    if reserve is not None and not wants_fit:
        raise click.UsageError("--reserve is read with --fit only.")
    profile, notes = load_profile(profile_name, overrides), list[str]()
    if card is not None:
        profile, notes = with_card(profile, card)
    plan = make_plan(profile)
    answer: dict[str, Any] = msgspec.structs.asdict(plan) | {"advice": [*notes, *plan.advice]}
    fine = plan.fits
    if wants_fit:
        fine = _fit(profile, plan, answer, reserve or DEFAULT_RESERVE, notes, as_json=as_json)
    elif component is not None:
        _explain(profile, plan, answer, component, as_json=as_json)
    elif not as_json:
        print_plan(plan, notes)
    if as_json:
        print_json(answer)
    click.get_current_context().exit(0 if fine else 1)


# What a plan alone has no use for is imported where it is asked for: a plan has to answer at once.


def _fit(
    profile: Profile, plan: Plan, answer: dict[str, Any], reserve: str, notes: list[str], *, as_json: bool
) -> bool:
    """Search, and print unless the answer will be JSON; whether any setting fits."""
    from dpo_daemon.plans.fitting import print_fit
    from dpo_profiles.plan.fit import Searcher, search
    from dpo_profiles.plan.fit_mends import mends

    searcher = Searcher(profile, reserve)
    fit = search(searcher)
    answer["fit"] = [ranked.choice for ranked in fit.best]
    if not as_json:
        print_fit(plan, fit, [] if fit.fits else mends(searcher, fit), notes)
    return fit.fits


def _explain(profile: Profile, plan: Plan, answer: dict[str, Any], component: str, *, as_json: bool) -> None:
    from dpo_daemon.plans.explained import print_explained
    from dpo_profiles.plan.explain import explain

    answer["explain"] = explain(profile, plan, component)
    if not as_json:
        print_explained(plan, component, answer["explain"])


def _compare(run_text: str, runs_dir: Path | None, as_json: bool) -> None:
    from dpo_daemon.plans.compare import compare, print_comparison
    from dpo_telemetry.rundir.find import find_run, runs_directory

    comparison = compare(find_run(run_text, runs_directory(runs_dir)))
    if as_json:
        print_json(comparison)
    else:
        print_comparison(comparison)
