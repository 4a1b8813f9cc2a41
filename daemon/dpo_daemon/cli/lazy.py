"""A group that loads a command's module only when that command is run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name, each the object `command` of this package's module of that name."""

    def __init__(self, *arguments: Any, commands_help: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commands_help = commands_help

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which people need them."""
        return list(self.commands_help)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None when there is none of this name."""
        if cmd_name not in self.commands_help:
            return None
        command = importlib.import_module(f"{__package__}.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.commands_help.items()))
