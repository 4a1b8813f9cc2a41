"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The answer of one check on one rank."""

    check: str
    text: str
    code: str = ""
    """Alert code where it failed; empty where it holds."""
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether what was checked holds."""
        return not self.code
