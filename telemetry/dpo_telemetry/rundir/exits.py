"""`exit-HOST.json`: how an agent says that its part of the job ended; written last."""

from __future__ import annotations

import msgspec


class HostExit(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the job on one host."""

    host: str
    code: int | None = None
    """Exit code of the launcher; None when a signal ended it."""
    signal: str = ""
    """Name of the signal that ended it, for example "SIGKILL"."""
    reason: str = ""
    """One sentence for people."""
    ended: float
    """Seconds since the epoch."""
