"""`dpo-daemon plan`."""

from __future__ import annotations

import click

from dpo_daemon.cli.options import json_option, print_json, profile_option, set_option
from dpo_daemon.tables import print_plan
from dpo_profiles.load import load_profile
from dpo_profiles.plan.make import make_plan


@click.command("plan")
@profile_option
@set_option
@json_option
def command(profile_name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what a profile should cost in memory, on each GPU and by component.

    Exit code 1 when it does not fit the profile's GPU.

    \b
    Examples:
      dpo-daemon plan --profile zero3
      dpo-daemon plan --profile zero3 --set adapter.r=64 --json
    """
    plan = make_plan(load_profile(profile_name, overrides))
    if as_json:
        print_json(plan)
    else:
        print_plan(plan)
    click.get_current_context().exit(0 if plan.fits else 1)
