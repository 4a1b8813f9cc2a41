"""Bytes of each component in each phase on one rank."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dpo_profiles.engine_files import AUTO, read_deepspeed
from dpo_profiles.plan import report
from dpo_profiles.plan.architecture import Architecture
from dpo_profiles.plan.sharding import (
    ZERO3_AUTO_PERSISTENCE_PER_HIDDEN,
    ZERO3_PERSISTENCE_DEFAULT,
    Parameter,
    Sharding,
)
from dpo_profiles.plan.tensors import (
    DTYPE_BYTES,
    adapter_parameters,
    base_parameters,
    compute_dtype,
    quantization_state_bytes,
)
from dpo_profiles.schema import Profile

ADAPTER_COPIES = 2
"""The policy's, and the frozen copy that is the reference."""
BLOCK_8BIT = 256
SMALLEST_8BIT_ELEMENTS = 4096
"""bitsandbytes keeps 32-bit moments for parameters below this (`min_8bit_size`), blocks of 256 above."""
PERSISTENCE_KEY = "stage3_param_persistence_threshold"


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank holds, in bytes."""

    whole_base: int
    """Before an engine has sharded it: both engines first load the quantised base on each rank."""
    base: int
    whole_adapters: int
    adapters: int
    gradients: int
    """While the backward pass runs and until the update."""
    step_gradients: int
    """At the update itself."""
    standing_gradients: int
    """Kept even when no backward pass runs."""
    optimizer: int

    def phases(self) -> dict[str, dict[str, int]]:
        """Phase to component, from the second update on; gradients accumulate over micro-batches."""
        standing, optimizer = self.standing_gradients, self.optimizer
        held = (self.base, self.adapters)
        return {
            "load": _phase(self.whole_base, self.whole_adapters, 0, 0),
            "reference": _phase(*held, 0, 0),
            "forward": _phase(*held, self.gradients, optimizer),
            "backward": _phase(*held, self.gradients, optimizer),
            "step": _phase(*held, self.step_gradients, optimizer),
            "eval": _phase(*held, standing, optimizer),
            "save": _phase(*held, standing, optimizer),
        }


def footprint(profile: Profile, model: Architecture) -> Footprint:
    """One rank's footprint.

    Source, optimizer and gradients: torch.optim.AdamW keeps two moments in the parameter's type;
    DeepSpeed keeps a float32 master and two float32 moments of each shard, one buffer of gradients in
    the arithmetic's type for all trainable shards, and float32 gradients at the update
    (runtime/zero/stage3.py, `_create_fp32_partitions`, `grad_partitions_flat_buffer`).
    """
    sharding = sharding_of(profile, model)
    base = base_parameters(profile, model)
    state = quantization_state_bytes(profile, model)
    master = DTYPE_BYTES[profile.adapter.master_dtype]
    zero3 = profile.engine.backend == "deepspeed-zero3"
    low = DTYPE_BYTES[compute_dtype(profile)] if zero3 else master
    adapter = adapter_parameters(profile, model, low)
    shard = sharding.shard_elements(adapter)
    return Footprint(
        whole_base=sum(parameter.total_bytes for parameter in base) + state,
        base=sum(sharding.rank_bytes(parameter) for parameter in base) + state,
        whole_adapters=ADAPTER_COPIES
        * sum(p.total_bytes for p in adapter_parameters(profile, model, master)),
        adapters=ADAPTER_COPIES * sum(sharding.rank_bytes(parameter) for parameter in adapter),
        gradients=shard * low,
        step_gradients=shard * (low + 4 if zero3 else low),
        standing_gradients=shard * low if zero3 else 0,
        optimizer=_moments(profile, sharding, adapter) + (4 * shard if zero3 else 0),
    )


def sharding_of(profile: Profile, model: Architecture) -> Sharding:
    """The engine's rule, with ZeRO-3's persistence threshold from the engine file itself.

    Raises:
        ProfileError: the engine file cannot be read.
    """
    engine = profile.engine
    persistence = 0
    if engine.backend == "deepspeed-zero3":
        persistence = _persistence(Path(engine.deepspeed_file), model)
    return Sharding(backend=engine.backend, world_size=engine.world_size, persistence_elements=persistence)


def _persistence(path: Path, model: Architecture) -> int:
    file = read_deepspeed(path)
    zero = file.table.get("zero_optimization")
    said = zero.get(PERSISTENCE_KEY) if isinstance(zero, dict) else None
    if said == AUTO:
        return ZERO3_AUTO_PERSISTENCE_PER_HIDDEN * model.hidden_size
    return int(said) if isinstance(said, int | float) else ZERO3_PERSISTENCE_DEFAULT


def _moments(profile: Profile, sharding: Sharding, adapter: list[Parameter]) -> int:
    """AdamW's two moments: float32 on float32 masters, 8-bit in blocks where the optimizer is so named."""
    shard = sharding.shard_elements(adapter)
    if profile.optimizer.name != "adamw_torch":
        return sum(_moments_8bit(sharding.elements(p)) * p.count for p in adapter)
    zero3 = profile.engine.backend == "deepspeed-zero3"
    item = 4 if zero3 else DTYPE_BYTES[profile.adapter.master_dtype]
    return 2 * item * shard


def _moments_8bit(elements: int) -> int:
    if elements < SMALLEST_8BIT_ELEMENTS:
        return 2 * 4 * elements
    return 2 * (elements + 4 * -(-elements // BLOCK_8BIT))


def _phase(policy: int, adapters: int, gradients: int, optimizer: int) -> dict[str, int]:
    return {
        report.POLICY_WEIGHTS: policy,
        report.REFERENCE_WEIGHTS: 0,
        report.ADAPTERS: adapters,
        report.GRADIENTS: gradients,
        report.OPTIMIZER_STATES: optimizer,
    }
