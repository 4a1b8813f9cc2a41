"""Which rank a process on a card is: an agent's file may be read before the files that say whose pid it is."""

from __future__ import annotations

from dataclasses import dataclass

from dpo_telemetry import events

MAX_UNKNOWN = 1 << 14
"""Processes that may be anybody's; a host's cards show some dozen each."""

Card = tuple[str, int]
"""Host and index of a GPU."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What NVML showed of one rank's process."""

    rank: int
    card: Card
    largest_bytes: int
    newest_bytes: int


class CardProcesses:
    """Brings pids and ranks together, whichever comes first."""

    def __init__(self) -> None:
        self._ranks: dict[tuple[int, str, str], int] = {}
        self._unknown: dict[tuple[int, str, str], tuple[Card, int, int]] = {}

    def start(self, attempt: int, host: str, pid: int, rank: int) -> Sighting | None:
        """A rank's process; what NVML showed of it before, if anything."""
        key = (attempt, host, str(pid))
        self._ranks[key] = rank
        seen = self._unknown.pop(key, None)
        return Sighting(rank, *seen) if seen is not None else None

    def see(self, attempt: int, gpu: events.Gpu) -> list[Sighting]:
        """The ranks among the processes of a card; what is not known yet waits for its start."""
        found = []
        card = (gpu.host, gpu.index)
        for pid, used in gpu.process_bytes.items():
            key = (attempt, gpu.host, pid)
            rank = self._ranks.get(key)
            if rank is not None:
                found.append(Sighting(rank, card, used, used))
            elif key in self._unknown or len(self._unknown) < MAX_UNKNOWN:
                largest = self._unknown[key][1] if key in self._unknown else 0
                self._unknown[key] = (card, max(used, largest), used)
        return found
