"""FSDP2: torch shards each decoder layer as DTensors and gathers it where it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from peft import PeftModel
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from dpo_trainer.engine.base import Engine
from dpo_trainer.engine.ranks import open_control_group

_DEFAULTS = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}
"""As accelerate's launcher hands on its file; where that launched us, its own values stand."""


class Fsdp2Engine(Engine):
    """Sharded while it is loaded, with the settings that accelerate has read."""

    shards = True

    def begin(self) -> None:
        """Join the other ranks."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        # With it the library's loader leaves every rank but the first without weights.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            PartialState()
        else:
            # accelerate turns FSDP on for GPUs only and falls back to DDP on a CPU without a word.
            state = PartialState(cpu=True, backend="gloo")
            state._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        open_control_group()

    def training_arguments(self) -> dict[str, Any]:
        """What the engine adds to the Hugging Face training arguments."""
        if self.device.type == "cuda":
            return {}
        return {"accelerator_config": {"use_configured_state": True}}

    def attach(self, accelerator: Accelerator) -> None:
        """Take over what the engine's file says."""
        plugin = accelerator.state.fsdp_plugin
        self._options: dict[str, Any] = {
            "offload_policy": plugin.cpu_offload,
            "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        }
        self._reshard = plugin.reshard_after_forward
        self.offloads = isinstance(plugin.cpu_offload, CPUOffloadPolicy)
        # accelerate would look for layers by their classes, which sharding has replaced by then.
        plugin.auto_wrap_policy = None

    def shard(self, module: nn.Module) -> None:
        """Keep this rank's part of a module's parameters and give the rest back."""
        fully_shard(module, reshard_after_forward=self._reshard, **self._options)

    def shard_rest(self, model: PeftModel) -> None:
        """Embedding, final norm and head, and what is left: the units that accelerate makes."""
        base = model.get_base_model()
        embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
        tied = embedding.weight is head.weight
        if not tied:
            self.shard(embedding)
        fully_shard([embedding, head] if tied else [head], reshard_after_forward=False, **self._options)
        fully_shard(model, **self._options)

    def give_back(self, model: nn.Module) -> None:
        """Shard again what `reshard_after_forward: false` keeps whole after a pass without a backward one."""
        for unit in model.modules():
            if isinstance(unit, FSDPModule):
                unit.reshard()

    def is_sharded(self, parameter: nn.Parameter) -> bool:
        """Whether this rank holds only a part of a parameter."""
        return isinstance(parameter, DTensor)

    def held(self, parameter: nn.Parameter) -> list[torch.Tensor]:
        """What this rank holds of a parameter between two uses."""
        return [_local(parameter.detach())]

    @contextmanager
    def gathered(self, module: nn.Module) -> Iterator[None]:
        """The module's own and its children's parameters whole while inside."""
        units = [unit for unit in module.modules() if isinstance(unit, FSDPModule)]
        for unit in units:
            unit.unshard()
        try:
            yield
        finally:
            for unit in units:
                unit.reshard()

    def whole(self, parameter: nn.Parameter) -> torch.Tensor:
        """The whole of a parameter as it is stored, gathered from all ranks, on the device."""
        tensor: torch.Tensor = _full(parameter.detach())
        return tensor

    def set_master(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """Replace what the optimizer updates, which is also what computes."""
        with torch.no_grad():
            parameter.copy_(_like(value, parameter))

    def full_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter
    ) -> dict[str, Any]:
        """The optimizer's state of a parameter, whole; empty before the first update."""
        return {key: _full(value) for key, value in optimizer.state.get(parameter, {}).items()}

    def set_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter, state: dict[str, Any]
    ) -> None:
        """Put back what `full_optimizer_state` gave, of this engine or another."""
        optimizer.state[parameter] = {
            key: _like(value, parameter) if isinstance(value, torch.Tensor) and value.dim() else value
            for key, value in state.items()
        }

    def had_gradient(self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.Tensor | None:
        """Where the last update had a gradient other than zero, bool, whole; None where there was none."""
        return None if parameter.grad is None else (_full(parameter.grad) != 0).cpu()

    def held_gradients(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[torch.Tensor]:
        """This rank's parts of the gradients."""
        return [_local(gradient) for gradient in super().held_gradients(model, optimizer)]

    def held_states(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """This rank's parts of the optimizer states."""
        return [_local(state) for state in super().held_states(optimizer)]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _full(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """A whole tensor laid out as a parameter is."""
    value = value.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
