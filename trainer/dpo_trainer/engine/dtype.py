"""The dtype that the base computes in."""

from __future__ import annotations

import torch

from dpo_trainer.errors import TrainerError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_dtype(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype the base computes in, and why.

    Raises:
        TrainerError: it cannot be trained in.
    """
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
