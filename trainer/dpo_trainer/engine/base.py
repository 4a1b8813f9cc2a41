"""What the job asks of an engine, and what one that shards nothing answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn

from dpo_profiles.schema import Profile
from dpo_trainer.engine.dtype import choose_dtype
from dpo_trainer.engine.ranks import Ranks

STATE_KEYS = ("exp_avg", "exp_avg_sq")
"""AdamW's moments, in the names of torch."""


class Engine:
    """One rank of a training engine; this one keeps every parameter whole.

    A subclass overrides what its engine does in another way. Methods that gather have to be called
    on all ranks at the same point; a tensor they return is on the CPU unless said otherwise.

    Raises:
        TrainerError: the dtype cannot be trained in.
    """

    shards = False
    """Whether a rank keeps only its part of each parameter."""
    reentrant_checkpointing = False
    """Whether recomputation needs torch's reentrant form."""

    offloads = False
    """Whether parameters rest in the host's memory, which no plan of a GPU counts."""

    def __init__(self, profile: Profile, ranks: Ranks) -> None:
        self.profile = profile
        self.ranks = ranks
        on_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", ranks.local_rank) if on_gpu else torch.device("cpu")
        self.compute_dtype, self.compute_dtype_reason = choose_dtype(profile.model.compute_dtype, self.device)

    @property
    def device_name(self) -> str:
        """What the rank computes on, as people call it."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return "cpu"

    @property
    def adapter_dtype(self) -> torch.dtype:
        """The dtype that adapters compute in."""
        dtype: torch.dtype = getattr(torch, self.profile.adapter.master_dtype)
        return dtype

    def begin(self) -> None:
        """Join the other ranks."""

    def training_arguments(self) -> dict[str, Any]:
        """What the engine adds to the Hugging Face training arguments."""
        return {"use_cpu": self.device.type == "cpu"}

    def attach(self, accelerator: Accelerator) -> None:
        """Know the accelerator, which has read the engine's own file."""

    def shard(self, module: nn.Module) -> None:
        """Keep this rank's part of a module's parameters and give the rest back."""

    def shard_rest(self, model: PeftModel) -> None:
        """The same for what is outside the units that `shard` was called with."""

    def give_back(self, model: nn.Module) -> None:
        """Let go of what is gathered beyond its use, so that parameters are the optimizer's again."""

    def is_sharded(self, parameter: nn.Parameter) -> bool:
        """Whether this rank holds only a part of a parameter."""
        return False

    def held(self, parameter: nn.Parameter) -> list[torch.Tensor]:
        """What this rank holds of a parameter between two uses."""
        return [parameter.detach()]

    def held_bytes(self, parameter: nn.Parameter) -> int:
        """Bytes of that, and of what the engine will gather once and keep."""
        return sum(tensor.nbytes for tensor in self.held(parameter))

    @contextmanager
    def gathered(self, module: nn.Module) -> Iterator[None]:
        """The module's own and its children's parameters whole while inside."""
        yield

    def whole(self, parameter: nn.Parameter) -> torch.Tensor:
        """The whole of a parameter as it is stored, gathered from all ranks, on the device."""
        return parameter.detach()

    def full_tensor(self, parameter: nn.Parameter) -> torch.Tensor:
        """The same on the CPU."""
        return self.whole(parameter).cpu()

    def full_master(self, parameter: nn.Parameter) -> torch.Tensor:
        """The whole of what the optimizer updates for a parameter, in the master dtype."""
        return self.full_tensor(parameter)

    def master_dtype(self, parameter: nn.Parameter) -> torch.dtype:
        """The dtype of what the optimizer updates for a parameter."""
        return parameter.dtype

    def set_master(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """Replace what the optimizer updates, and the copy that computes."""
        parameter.data.copy_(value)

    def full_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter
    ) -> dict[str, Any]:
        """The optimizer's state of a parameter, whole; empty before the first update."""
        state: dict[str, Any] = optimizer.state.get(parameter, {})
        return state

    def set_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter, state: dict[str, Any]
    ) -> None:
        """Put back what `full_optimizer_state` gave, of this engine or another."""
        optimizer.state[parameter] = {
            # AdamW's step counter stays on the CPU; the moments live beside the weight.
            key: value.to(parameter.device) if isinstance(value, torch.Tensor) and value.dim() else value
            for key, value in state.items()
        }

    def had_gradient(self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.Tensor | None:
        """Where the last update had a gradient other than zero, bool, whole; None where there was none."""
        return None if parameter.grad is None else (parameter.grad.detach() != 0).cpu()

    def held_gradients(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[torch.Tensor]:
        """This rank's gradients."""
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    def held_states(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """This rank's optimizer states, master weights included where the engine keeps them apart."""
        return list(nested_tensors(list(optimizer.state.values())))


def nested_tensors(value: object) -> Iterator[torch.Tensor]:
    """Tensors anywhere in dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from nested_tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from nested_tensors(item)
