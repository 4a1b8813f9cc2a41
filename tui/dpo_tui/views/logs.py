"""The raw log in front, as the log screen shows it."""

from __future__ import annotations

from dataclasses import dataclass

from dpo_tui.logs.tail import LogLine


@dataclass(frozen=True, slots=True)
class LogChoice:
    """What somebody wants to read: a file by its name, or all ranks of an attempt."""

    name: str = ""
    """File name; empty for rank 0, or for what there is of a run without ranks' logs."""
    attempt: int | None = None
    """None follows the newest one."""
    all_ranks: bool = False


@dataclass(frozen=True, slots=True)
class LogFile:
    """One raw log that can be chosen."""

    path: str
    """Relative to the run directory."""
    attempt: int
    label: str
    """"rank 3", "launcher node1"."""
    size_bytes: int

    @property
    def name(self) -> str:
        """File name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class LogsView:
    """Lines of one file, or of several together."""

    files: tuple[LogFile, ...] = ()
    """All that the run has, by attempt."""
    shown: tuple[LogFile, ...] = ()
    """Those whose lines these are."""
    lines: tuple[LogLine, ...] = ()
    """Oldest first."""
    first: int = 0
    """Number of the first line: it rises as old lines give way, and a line keeps its number."""
    unfinished: int = 0
    """How many of the last lines have no end yet, and may change."""
    left_out_bytes: int = 0
    """Bytes before the first line, and of passages that were passed over."""
    book: int = 0
    """Changes when another log was opened: numbers start over."""

    @property
    def end(self) -> int:
        """Number behind the last line."""
        return self.first + len(self.lines)
