"""What this room raises when the user has to mend something.

ProfileError
└── PlanUnavailableError   the profile is fine, but its model's architecture is not known here
"""

from __future__ import annotations

import click


class ProfileError(click.ClickException):
    """One line for the user: file, field, what is wrong, what to do. Exit code 2."""

    exit_code = 2


class PlanUnavailableError(ProfileError):
    """No plan can be made for this model; the run itself may still start."""
