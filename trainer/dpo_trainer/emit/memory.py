"""Memory by component: the storage bytes of the real tensors, each storage counted once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psutil
import torch
from torch import nn

from dpo_telemetry import components, events
from dpo_telemetry.events import PhaseName

Storages = dict[tuple[str, int], int]
"""Bytes by device and address."""


class MemoryMeter:
    """Measures one rank. Components that do not exist yet are absent, never 0."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._weights: dict[str, int] = {}
        self._model: nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    def watch(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Measure this model from now on; its weights are counted once, here."""
        self._model, self._optimizer = model, optimizer
        adapters = storages(t for name, t in _tensors(model) if ".lora_" in name)
        weights = storages(t for name, t in _tensors(model) if ".lora_" not in name)
        found = {components.POLICY_WEIGHTS: weights, components.ADAPTERS: adapters}
        self._weights = {name: sum(held.values()) for name, held in found.items() if held}

    def components(self) -> dict[str, int]:
        """Bytes by component now."""
        found = dict(self._weights)
        if self._model is not None:
            gradients = storages(p.grad for p in self._model.parameters() if p.grad is not None)
            if gradients:
                found[components.GRADIENTS] = sum(gradients.values())
        if self._optimizer is not None and self._optimizer.state:
            states = storages(_nested_tensors(list(self._optimizer.state.values())))
            found[components.OPTIMIZER_STATES] = sum(states.values())
        return found

    def event(self, phase: PhaseName, step: int | None) -> events.Memory:
        """What a rank uses now, and since the last call at its peak."""
        on_card: dict[str, int] = {}
        if self._device.type == "cuda":
            on_card = {
                "allocated_bytes": torch.cuda.memory_allocated(self._device),
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(self._device),
                "reserved_bytes": torch.cuda.memory_reserved(self._device),
            }
            torch.cuda.reset_peak_memory_stats(self._device)
        return events.Memory(
            **events.stamp(),
            phase=phase,
            step=step,
            components=self.components(),
            rss_bytes=self._process.memory_info().rss,
            **on_card,
        )


def storages(tensors: Iterable[torch.Tensor]) -> Storages:
    """Storages behind tensors: views and tied weights share theirs."""
    found: Storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.nbytes():
            found[(str(storage.device), storage.data_ptr())] = storage.nbytes()
    return found


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name, and what a 4-bit weight keeps beside its codes."""
    for name, parameter in model.named_parameters():
        yield name, parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            for tensor in _quantization_tensors(state):
                yield name, tensor
    yield from model.named_buffers()


def _quantization_tensors(state: Any) -> Iterator[torch.Tensor]:
    """absmax, code book and offset, and the same of the quantised absmax."""
    for value in (state.absmax, state.code, state.offset):
        if isinstance(value, torch.Tensor):
            yield value
    if state.state2 is not None:
        yield from _quantization_tensors(state.state2)


def _nested_tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _nested_tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _nested_tensors(item)
