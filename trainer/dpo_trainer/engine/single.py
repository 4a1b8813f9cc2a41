"""One process on one device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dpo_trainer.errors import TrainerError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class SingleEngine:
    """The first GPU where there is one, else the CPU.

    Raises:
        TrainerError: the dtype cannot be trained in.
    """

    rank = 0
    world_size = 1

    def __init__(self, compute_dtype: str) -> None:
        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        self.compute_dtype, self.compute_dtype_reason = _choose_dtype(compute_dtype, self.device)

    @property
    def device_name(self) -> str:
        """What the rank computes on, as people call it."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return "cpu"

    def training_arguments(self) -> dict[str, Any]:
        """What the engine adds to the Hugging Face training arguments."""
        return {"use_cpu": self.device.type == "cpu"}

    def full_tensor(self, parameter: nn.Parameter) -> torch.Tensor:
        """The parameter itself, on the CPU."""
        return parameter.detach().cpu()

    def full_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter
    ) -> dict[str, Any]:
        """The parameter's own state, empty before the first update."""
        state: dict[str, Any] = optimizer.state.get(parameter, {})
        return state


def _choose_dtype(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype the base computes in, and why."""
    if wanted == "float16":
        raise TrainerError(
            "model.compute_dtype: float16 underflows in the backward pass of the preference loss; "
            "use bfloat16 or float32"
        )
    if wanted != "auto":
        return _DTYPES[wanted], "as the profile says"
    if device.type == "cpu":
        return torch.float32, "auto: a CPU has no fast 16-bit arithmetic for sure"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "auto: the GPU computes in bfloat16"
    return torch.float32, "auto: the GPU has no bfloat16"
