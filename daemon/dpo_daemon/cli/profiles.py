"""`dpo-daemon profiles`."""

from __future__ import annotations

import tomllib

import click

from dpo_daemon.cli.options import json_option, print_json, set_option
from dpo_profiles.load import load_profile, shipped_names
from dpo_profiles.render import to_toml


@click.group("profiles", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the shipped profiles, or show one in full.

    \b
    Examples:
      dpo-daemon profiles
      dpo-daemon profiles show demo > mine.toml
    """
    if ctx.invoked_subcommand is not None:
        return
    profiles = [load_profile(name) for name in shipped_names()]
    if as_json:
        print_json({"profiles": [{"name": p.name, "description": p.description} for p in profiles]})
        return
    width = max(len(profile.name) for profile in profiles)
    for profile in profiles:
        click.echo(f"{profile.name:<{width}}  {profile.description}")


@command.command("show")
@click.argument("name", metavar="NAME|FILE")
@set_option
@json_option
def show(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print a profile as TOML, every default written out, each field with its unit.

    What is printed is itself a profile.
    """
    profile = load_profile(name, overrides)
    if as_json:
        print_json(tomllib.loads(to_toml(profile, comments=False)))
    else:
        click.echo(to_toml(profile, comments=True), nl=False)
