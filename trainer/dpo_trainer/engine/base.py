"""What the job asks of an engine."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn


class Engine(Protocol):
    """One rank of a training engine."""

    device: torch.device
    compute_dtype: torch.dtype
    compute_dtype_reason: str
    rank: int
    world_size: int

    @property
    def device_name(self) -> str:
        """What the rank computes on, as people call it."""
        ...

    def training_arguments(self) -> dict[str, Any]:
        """What the engine adds to the Hugging Face training arguments."""
        ...

    def full_tensor(self, parameter: nn.Parameter) -> torch.Tensor:
        """The whole of a parameter, gathered from all ranks, in its master dtype."""
        ...

    def full_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter
    ) -> dict[str, Any]:
        """The optimizer's state of a parameter, gathered from all ranks."""
        ...
