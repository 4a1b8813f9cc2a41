"""4-bit layers: what they keep beside their codes, and a fingerprint of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn

_CHUNK_BYTES = 1 << 20
"""Four bytes of workspace a byte, several times over; a layer must not double while it is looked at."""
_PERIOD = 65_521
"""The largest prime below 2^16: a byte's weight depends on where it stands, so a permutation shows."""


def layers_4bit(model: nn.Module) -> dict[str, Linear4bit]:
    """4-bit layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def quantise(value: torch.Tensor, like: Params4bit) -> Params4bit:
    """A weight [out, in] on its device as NF4 codes, with the settings of a hollow weight."""
    return Params4bit(value, requires_grad=False, **like.__dict__).to(value.device)


def quantisation_state(layer: Linear4bit) -> Any:
    """absmax and code book of a layer; None when they are lost.

    FSDP replaces the parameter that carried them, and bitsandbytes takes the layer's own then.
    """
    return getattr(layer.weight, "quant_state", None) or getattr(layer, "quant_state", None)


def state_tensors(state: Any) -> Iterator[torch.Tensor]:
    """absmax, code book and offset, and the same of the quantised absmax; nothing of a state that is lost."""
    if state is None:
        return
    for value in (state.absmax, state.code, state.offset):
        if isinstance(value, torch.Tensor):
            yield value
    yield from state_tensors(state.state2)


def fingerprint(tensor: torch.Tensor) -> int:
    """A number that changes with any byte of a tensor, computed where the tensor is."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, flat.numel(), _CHUNK_BYTES):
        part = flat[start : start + _CHUNK_BYTES].to(torch.int32)
        begin = start % _PERIOD
        weights = (
            torch.arange(begin, begin + part.numel(), dtype=torch.int32, device=flat.device) % _PERIOD + 1
        )
        total += (part * weights).sum(dtype=torch.int64)
    return int(total)


def keep_codes_in_place(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit codes for AVX512-BF16 the first time a layer evaluates.

    The repacking is lossy and cannot be undone for training: log-probs move by 0.065 after it.
    """
    for layer in layers_4bit(model).values():
        layer.support_avx512bf16_for_cpu = False
