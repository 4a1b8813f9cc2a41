"""Memory by component: the storage bytes of the real tensors, each storage counted once."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator

import psutil
import torch
from torch import nn

from dpo_telemetry import components, events
from dpo_telemetry.events import PhaseName
from dpo_trainer.engine import Engine
from dpo_trainer.model.nf4 import layers_4bit, quantisation_state, state_tensors

Storages = dict[tuple[str, int], int]
"""Bytes by device and address."""


class MemoryMeter:
    """Measures one rank. Components that do not exist yet are absent, never 0."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._device = engine.device
        self._process = psutil.Process()
        self._weights: dict[str, int] = {}
        self._in_use = False
        self._model: nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    def watch(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Measure this model from now on; its weights are counted here, and once more when they are in use."""
        self._model, self._optimizer = model, optimizer
        self._in_use = False
        self._count_weights(model)

    def _count_weights(self, model: nn.Module) -> None:
        adapters = self._held(t for name, t in self._tensors(model) if ".lora_" in name)
        weights = self._held(t for name, t in self._tensors(model) if ".lora_" not in name)
        found = {components.POLICY_WEIGHTS: weights, components.ADAPTERS: adapters}
        self._weights = {name: size for name, size in found.items() if size}

    def components(self) -> dict[str, int]:
        """Bytes by component now."""
        found = dict(self._weights)
        if self._model is not None:
            gradients = self._held(self._engine.held_gradients(self._model, self._optimizer))
            if gradients:
                found[components.GRADIENTS] = gradients
        if self._optimizer is not None and (states := self._held(self._engine.held_states(self._optimizer))):
            found[components.OPTIMIZER_STATES] = states
        return found

    def _held(self, tensors: Iterable[torch.Tensor]) -> int:
        """Bytes on the rank's device: what rests in a host's memory takes nothing of a card."""
        return sum(storages(t for t in tensors if t.device.type == self._device.type).values())

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
        if step and self._model is not None and not self._in_use:
            # ZeRO-3 gathers small parameters at their first use and keeps them.
            self._in_use = True
            self._count_weights(self._model)
        return events.Memory(
            **events.stamp(),
            phase=phase,
            step=step,
            components=self.components(),
            rss_bytes=self._process.memory_info().rss,
            # Linux counts in KiB.
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **on_card,
        )

    def _tensors(self, model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        """What this rank holds of parameters and buffers, by name, and what 4-bit layers keep beside codes."""
        for name, parameter in model.named_parameters():
            for tensor in self._engine.held(parameter):
                yield name, tensor
        for name, layer in layers_4bit(model).items():
            for tensor in state_tensors(quantisation_state(layer)):
                yield name, tensor
        yield from model.named_buffers()


def storages(tensors: Iterable[torch.Tensor]) -> Storages:
    """Storages behind tensors: views and tied weights share theirs."""
    found: Storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.nbytes():
            found[(str(storage.device), storage.data_ptr())] = storage.nbytes()
    return found
