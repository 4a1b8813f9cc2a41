"""The ranks of a job, and the little that they say to each other between steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""As gloo says it, in a plain RuntimeError."""


def launched() -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return "WORLD_SIZE" in os.environ


@dataclass(frozen=True)
class Ranks:
    """This process among the others, as torchrun's environment says."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """The launcher's word; a process without one is alone."""
        if not launched():
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")))

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Flags [n], each true on every rank as soon as it is on one.

        Ranks see a signal or a file at different times, and a rank that alone stops or saves leaves
        the others waiting in a collective for ever.
        """
        if self.world_size == 1:
            return list(flags)
        seen = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(seen, dist.ReduceOp.MAX, group=_control_group())
        return [bool(flag) for flag in seen.tolist()]

    def mean(self, value: float) -> float:
        """Mean of a number over the ranks; not finite as soon as one of them is not."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=_control_group())
        return float(total) / self.world_size

    def gather(self, value: T) -> list[T]:
        """What each rank has, in the order of ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        found: list[T | None] = [None] * self.world_size
        dist.all_gather_object(found, value, group=_control_group())
        return found  # type: ignore[return-value]

    def lost_one(self, error: RuntimeError) -> bool:
        """Whether an error is the backend's word that another rank is gone."""
        said = str(error)
        gone = isinstance(error, dist.DistBackendError) or any(words in said for words in _GONE)
        return self.world_size > 1 and gone

    def wait(self) -> None:
        """Until all ranks have come here."""
        if self.world_size > 1:
            dist.barrier(group=_control_group())


_group: list[dist.ProcessGroup] = []


def open_control_group() -> None:
    """A group of its own for control, over gloo: it never queues behind a GPU's collectives.

    To be called on every rank at the same point, once the job's own group is there.
    """
    _group[:] = [dist.new_group(backend="gloo")]


def _control_group() -> dist.ProcessGroup:
    return _group[0]
