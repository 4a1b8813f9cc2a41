"""A frozen model with adapters under FSDP2 on CPU ranks: all-gathers in each pass, and layers that are whole after it.

Run by torchrun with 1 or 0: whether layers are sharded again after their forward pass.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

LAYERS, WIDTH = 4, 8


class Layer(nn.Module):
    """A frozen linear layer with a low-rank adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as `x`."""
        hidden: torch.Tensor = x + torch.relu(self.base(x)) + self.up(self.down(x))
        return hidden


def main(reshards: bool) -> None:
    """Print one JSON object on the first rank."""
    dist.init_process_group("gloo")
    model = nn.Sequential(*(Layer() for _ in range(LAYERS)))
    for layer in model:
        fully_shard(layer, reshard_after_forward=reshards)
    fully_shard(model)
    x = torch.randn(2, WIDTH, requires_grad=True)
    gathers, whole = [], []

    def note(counted: Any = None) -> None:
        if counted is not None:
            counts = counted.get_comm_counts()
            gathers.append(sum(count for kind, count in counts.items() if "gather" in str(kind)))
        layers = [all(not isinstance(p, DTensor) for p in layer.parameters()) for layer in model]
        whole.append(sum(layers))

    counting: Any = CommDebugMode
    with counting() as reference, torch.no_grad():
        model(x)
    note(reference)
    with counting() as forward:
        loss = model(x).sum()
    note(forward)
    with counting() as backward:
        loss.backward()
    note(backward)
    with torch.no_grad():
        model(x)
    note()
    if dist.get_rank() == 0:
        sys.stdout.write(json.dumps({"gathers": gathers, "whole": whole}) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1] == "1")
