"""What this room raises when the user has to mend something."""

from __future__ import annotations

import click


class TrainerError(click.ClickException):
    """One line for the user: file, field, what is wrong, what to do. Exit code 2."""

    exit_code = 2
