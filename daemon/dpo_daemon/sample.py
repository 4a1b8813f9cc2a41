"""One look at this host and at the ranks on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from dpo_daemon.nvml import Nvml
from dpo_daemon.processes import descendants
from dpo_telemetry import events


class Sampler:
    """Samples of the host, of its GPUs and of the ranks' resident memory."""

    def __init__(self, host: str, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._nvml = Nvml()
        self._ranks: dict[psutil.Process, str] = {}
        psutil.cpu_percent()  # the first reading has nothing to compare with

    def sample(self) -> Iterator[events.Event]:
        """The host's event and one for each GPU."""
        memory = psutil.virtual_memory()
        yield events.Host(
            **events.stamp(),
            host=self._host,
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            cpu_percent=psutil.cpu_percent(),
            disk_free_bytes=self._disk_free_bytes(),
            rss_bytes=self._rss_bytes(),
        )
        yield from self._nvml.sample(self._host)

    def close(self) -> None:
        """Let NVML go."""
        self._nvml.close()

    def _disk_free_bytes(self) -> int | None:
        with contextlib.suppress(OSError):
            return psutil.disk_usage(str(self._folder)).free
        return None

    def _rss_bytes(self) -> dict[str, int]:
        """Resident memory by rank: of the topmost process that carries the rank, not of its workers."""
        found: dict[str, int] = {}
        known, self._ranks = self._ranks, {}
        for process in descendants():
            # Only a found rank is kept: a child that has not called exec yet shows its parent's variables.
            rank = known.get(process) or _rank_of(process)
            if rank is None:
                continue
            self._ranks[process] = rank
            if rank not in found:
                with contextlib.suppress(psutil.Error):
                    found[rank] = process.memory_info().rss
        return found


def _rank_of(process: psutil.Process) -> str | None:
    """The RANK that the process was started with; None for launchers and helpers."""
    try:
        rank = process.environ().get("RANK", "")
    except (psutil.Error, OSError):
        return None
    return rank if rank.isdigit() else None
