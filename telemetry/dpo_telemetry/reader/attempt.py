"""What is known of each attempt of a run, and of each process that writes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from dpo_telemetry import events
from dpo_telemetry.budget import Budget
from dpo_telemetry.health.memory_watch import MemoryWatch
from dpo_telemetry.rundir.exits import HostExit

_RANK_FILE = re.compile(r"/rank-(\d{1,9})\.jsonl$")


@dataclass
class AttemptView:
    """One start or resume."""

    number: int
    profile: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    """The plan against what ranks and NVML measured."""
    start: events.Start | None = None
    """Start of rank 0."""
    exit: events.Exit | None = None
    """How rank 0 says it ended."""
    alerts: list[events.Alert] = field(default_factory=list)
    """Every alert event of it, those of its keepers included."""
    host_exits: list[HostExit] = field(default_factory=list)
    """How the agents say that their part of the job ended."""
    memory_watch: MemoryWatch = field(init=False)

    def __post_init__(self) -> None:
        self.memory_watch = MemoryWatch(self.budget)


@dataclass
class ProcessView:
    """One writing process."""

    file: str
    attempt: int
    start: events.Start | None = None
    last_seen_s: float = 0.0
    """Wall clock of its newest event."""
    last_step_s: float = 0.0
    """Wall clock of its newest step."""
    exit: events.Exit | None = None

    @property
    def rank(self) -> int | None:
        """Rank of a training process, by its file while its start is not known; None for others."""
        if self.start is not None:
            return self.start.rank
        name = _RANK_FILE.search(self.file)
        return int(name[1]) if name else None
