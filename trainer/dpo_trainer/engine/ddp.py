"""Data parallel: every rank has the whole model, and gradients are averaged."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState

from dpo_trainer.engine.base import Engine
from dpo_trainer.engine.ranks import open_control_group


class DdpEngine(Engine):
    """torch's DistributedDataParallel, over NCCL or over gloo."""

    def begin(self) -> None:
        """Join the other ranks."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            PartialState()
        else:
            PartialState(cpu=True, backend="gloo")
        open_control_group()

    def training_arguments(self) -> dict[str, Any]:
        """What the engine adds to the Hugging Face training arguments."""
        found: dict[str, Any] = {"ddp_find_unused_parameters": False}
        if self.device.type == "cpu":
            found |= {"use_cpu": True, "ddp_backend": "gloo"}
        return found
