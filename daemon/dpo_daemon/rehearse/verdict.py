"""What a rehearsal answers."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


class Verdict(msgspec.Struct, kw_only=True):
    """What came of a rehearsal; `dpo-daemon rehearse --json` prints it."""

    profile: str
    backend: str
    ranks: int
    device: str = ""
    """What the ranks computed on; empty where none came so far."""
    run: str = ""
    """The rehearsal's run directory; empty where it is removed."""
    notes: list[str] = []
    checks: list[Finding] = []
    ok: bool = False
