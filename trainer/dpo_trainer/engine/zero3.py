"""DeepSpeed ZeRO-3: parameters, gradients and optimizer states in one flat part a rank."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from peft import PeftModel
from torch import nn
from transformers import training_args

from dpo_profiles.engine_files import AUTO
from dpo_profiles.schema import Profile
from dpo_trainer.engine.base import STATE_KEYS, Engine, nested_tensors
from dpo_trainer.engine.ranks import Ranks, open_control_group

_SHARED_MEMORY = "deepspeed_shm_comm"


class Zero3Engine(Engine):
    """Sharded while it is loaded, with the settings of DeepSpeed's own file."""

    shards = True
    # Recomputation by saved-tensor hooks sees parameters that have been partitioned again meanwhile
    # (trl#2514); TRL forces the reentrant form too.
    reentrant_checkpointing = True

    def __init__(self, profile: Profile, ranks: Ranks) -> None:
        super().__init__(profile, ranks)
        self._config: dict[str, Any] = json.loads(Path(profile.engine.deepspeed_file).read_bytes())

    @property
    def adapter_dtype(self) -> torch.dtype:
        """DeepSpeed's bf16 engine computes in bfloat16 throughout and keeps float32 masters itself."""
        return self.compute_dtype if self._bf16 else super().adapter_dtype

    @property
    def _bf16(self) -> bool:
        enabled = self._config.get("bf16", {}).get("enabled", False)
        return self.compute_dtype == torch.bfloat16 if enabled == AUTO else bool(enabled)

    def begin(self) -> None:
        """Join the other ranks."""
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            PartialState()
        else:
            import deepspeed

            # An extension for shared memory that DeepSpeed would compile, for most of a minute and with a
            # compiler that may not be there; gloo does without.
            deepspeed.ops.__compatible_ops__[_SHARED_MEMORY] = False
            PartialState(backend="gloo")
            # DeepSpeed computes in bfloat16 on a CPU too; transformers asks for a GPU that does.
            training_args.is_torch_bf16_gpu_available = lambda: True
        open_control_group()

    def training_arguments(self) -> dict[str, Any]:
        """What the engine adds to the Hugging Face training arguments."""
        found: dict[str, Any] = {"deepspeed": self.profile.engine.deepspeed_file, "bf16": self._bf16}
        if self.device.type == "cpu":
            found["accelerator_config"] = {"use_configured_state": True}
        return found

    def attach(self, accelerator: Accelerator) -> None:
        """Take over the engine's file with the values that it leaves to the trainer."""
        self._config = accelerator.state.deepspeed_plugin.hf_ds_config.config
        offload = self._config["zero_optimization"].get("offload_param") or {}
        self.offloads = offload.get("device", "none") != "none"

    def shard(self, module: nn.Module) -> None:
        """Keep this rank's part of a module's parameters and give the rest back."""
        import deepspeed

        deepspeed.zero.Init(module=module, config_dict_or_path=self._config)

    def shard_rest(self, model: PeftModel) -> None:
        """The same for what is outside the units that `shard` was called with."""
        self.shard(model)

    def is_sharded(self, parameter: nn.Parameter) -> bool:
        """Whether this rank holds only a part of a parameter."""
        return hasattr(parameter, "ds_tensor")

    def held(self, parameter: nn.Parameter) -> list[torch.Tensor]:
        """The part, and the whole of a small parameter that DeepSpeed keeps gathered."""
        part = getattr(parameter, "ds_tensor", None)
        return [parameter.data] if part is None else [parameter.data, part]

    def held_bytes(self, parameter: nn.Parameter) -> int:
        """Bytes of the part; below the persistence threshold of the whole too, gathered at the first use."""
        part = getattr(parameter, "ds_tensor", None)
        if part is None:
            return parameter.nbytes
        whole = int(parameter.ds_numel) if parameter.ds_persist else 0  # type: ignore[attr-defined]
        return int(part.nbytes) + whole * parameter.element_size()

    @contextmanager
    def gathered(self, module: nn.Module) -> Iterator[None]:
        """The module's own and its children's parameters whole while inside."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            yield

    def whole(self, parameter: nn.Parameter) -> torch.Tensor:
        """The whole of a parameter as it is stored, gathered from all ranks, on the device."""
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()

    def full_master(self, parameter: nn.Parameter) -> torch.Tensor:
        """The whole of what the optimizer updates for a parameter, in the master dtype."""
        from deepspeed.utils import safe_get_full_fp32_param

        master = safe_get_full_fp32_param(parameter) if hasattr(parameter, "_z3_optimizer") else None
        return self.full_tensor(parameter) if master is None else master.detach().cpu().clone()

    def master_dtype(self, parameter: nn.Parameter) -> torch.dtype:
        """The dtype of what the optimizer updates for a parameter."""
        owner = getattr(parameter, "_z3_optimizer", None)
        if owner is None:
            return parameter.dtype
        dtype: torch.dtype = owner.fp32_partitioned_groups_flat[0].dtype
        return dtype

    def set_master(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """Replace what the optimizer updates, and the copy that computes."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        if hasattr(parameter, "_z3_optimizer"):
            safe_set_full_fp32_param(parameter, value.to(self.device))
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(value)

    def full_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter
    ) -> dict[str, Any]:
        """The optimizer's state of a parameter, whole; empty before the first update."""
        from deepspeed.utils import safe_get_full_optimizer_state

        step = _step(_flat_optimizer(optimizer))
        if step is None:
            return {}
        found: dict[str, Any] = {"step": step}
        for key in STATE_KEYS:
            found[key] = safe_get_full_optimizer_state(parameter, key).detach().cpu().clone()
        return found

    def set_optimizer_state(
        self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter, state: dict[str, Any]
    ) -> None:
        """Put back what `full_optimizer_state` gave, of this engine or another."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not state:
            return
        flat = _flat_optimizer(optimizer)
        for group in _zero(optimizer).fp32_partitioned_groups_flat:
            if group not in flat.state:
                # DeepSpeed writes into moments that are there; its own appear with the first update.
                flat.state[group] = {key: torch.zeros_like(group) for key in STATE_KEYS}
            flat.state[group]["step"] = torch.as_tensor(state["step"], dtype=torch.float32).clone()
        for key in STATE_KEYS:
            safe_set_full_optimizer_state(parameter, state[key].to(self.device), key)

    def had_gradient(self, optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.Tensor | None:
        """Where the last update had a gradient: its first moment is zero exactly where it had none."""
        state = self.full_optimizer_state(optimizer, parameter)
        return state["exp_avg"] != 0 if state else None

    def held_gradients(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[torch.Tensor]:
        """This rank's part of the gradients: one buffer, which DeepSpeed keeps from its start to its end."""
        buffer = getattr(_zero(optimizer), "grad_partitions_flat_buffer", None)
        return [] if buffer is None else [buffer]

    def held_states(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """This rank's moments and float32 masters."""
        moments = list(nested_tensors(list(_flat_optimizer(optimizer).state.values())))
        # An optimizer of another stage has none, and measuring must not hide that the self-test says so.
        return moments + list(getattr(_zero(optimizer), "fp32_partitioned_groups_flat", ()))


def _zero(optimizer: Any) -> Any:
    """DeepSpeed's optimizer below accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


def _flat_optimizer(optimizer: Any) -> Any:
    """torch's optimizer below DeepSpeed's, over one flat float32 part a group."""
    return _zero(optimizer).optimizer


def _step(flat: Any) -> torch.Tensor | None:
    return next((state["step"] for state in flat.state.values() if "step" in state), None)
