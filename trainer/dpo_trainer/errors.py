"""What this room raises when the user has to mend something."""

from __future__ import annotations

import click


class TrainerError(click.ClickException):
    """One line for the user: file, field, what is wrong, what to do. Exit code 2."""

    exit_code = 2


class Refused(TrainerError):  # noqa: N818 - it is an answer: what was given is whole, and does not fit
    """What was given can be read, and does not fit together: bad news. Exit code 1."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What a library's error says, without the rest of its page."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
