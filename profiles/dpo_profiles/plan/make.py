"""A plan for a profile, by arithmetic alone."""

from __future__ import annotations

import msgspec

from dpo_profiles.plan.architecture import Architecture
from dpo_profiles.plan.bounds import disk_bytes, host_ram_bytes, nvml_high, working_bytes
from dpo_profiles.plan.components import Footprint, footprint, sharding_of
from dpo_profiles.plan.find import find_architecture
from dpo_profiles.plan.report import COMPONENTS, Gpu, Interval, ModelSize, Plan, RankPlan
from dpo_profiles.plan.tensors import adapter_parameters
from dpo_profiles.schema import Profile

GIB = 1 << 30


def make_plan(profile: Profile) -> Plan:
    """What the run should cost, per GPU, component and phase.

    Shards are counted with their padding, so that all ranks are equal.

    Raises:
        PlanUnavailableError: the model's architecture is not known on this machine.
        ProfileError: a target module that the model lacks, or an unreadable engine file.
    """
    model = find_architecture(profile.model.base, profile.name)
    trainable = sum(p.elements * p.count for p in adapter_parameters(profile, model, 4))
    counted = footprint(profile, model)
    rank = _rank(profile, model, counted)
    capacity = profile.hardware.capacity_bytes
    fits = capacity == 0 or rank.nvml_bytes.high <= capacity
    working = working_bytes(profile, model, sharding_of(profile, model))
    return Plan(
        profile=profile.name,
        world_size=profile.engine.world_size,
        gpu=Gpu(name=profile.hardware.gpu, capacity_bytes=capacity),
        model=ModelSize(name=profile.model.base, parameters=model.parameters, trainable_parameters=trainable),
        per_gpu=[msgspec.structs.replace(rank, rank=number) for number in range(profile.engine.world_size)],
        host_ram_bytes=host_ram_bytes(profile, model, counted, working),
        disk_bytes=disk_bytes(profile, trainable),
        fits=fits,
        calibrated=False,
        advice=_advice(profile, rank, fits),
    )


def _rank(profile: Profile, model: Architecture, counted: Footprint) -> RankPlan:
    phases = counted.phases()
    peak = max(sum(parts.values()) for parts in phases.values())
    high = nvml_high(profile, model, sharding_of(profile, model), counted)
    capacity = profile.hardware.capacity_bytes
    return RankPlan(
        rank=0,
        components={name: max(parts[name] for parts in phases.values()) for name in COMPONENTS},
        phases=phases,
        resident_bytes=sum(phases["step"].values()),
        peak_allocated_bytes=peak,
        nvml_bytes=Interval(low=peak, high=high),
        headroom_bytes=capacity - high if capacity else 0,
    )


def _advice(profile: Profile, rank: RankPlan, fits: bool) -> list[str]:
    advice = []
    if not profile.hardware.capacity_bytes:
        advice.append(
            "hardware.capacity_bytes is 0, so nothing was compared: set it to what NVML reports for one GPU"
        )
    if not fits:
        over = -rank.headroom_bytes / GIB
        advice.append(f"up to {over:.1f} GiB a GPU too much: {_mend(profile, rank)}")
    advice.append(
        "activations, cache and context are bounded, not planned: expect NVML between nvml_bytes low and high"
    )
    return advice


def _mend(profile: Profile, rank: RankPlan) -> str:
    if rank.peak_allocated_bytes > profile.hardware.capacity_bytes:
        if profile.quantization.kind == "none":
            return "the weights alone do not fit; set quantization.kind to nf4"
        if profile.engine.backend in ("single", "ddp"):
            return (
                "the weights alone do not fit; take a sharding engine.backend on a card that holds one copy"
            )
        return "loading puts the whole base on each GPU; take a card that holds one copy"
    if not profile.train.gradient_checkpointing:
        return "set train.gradient_checkpointing to true"
    if max(profile.train.micro_batch_pairs, profile.eval.micro_batch_pairs) > 1:
        return "set train.micro_batch_pairs and eval.micro_batch_pairs to 1, and accumulate more"
    if profile.quantization.kind == "nf4" and not profile.quantization.double_quantization:
        return "set quantization.double_quantization to true"
    return "lower data.max_length_tokens, or take more GPUs with deepspeed-zero3 or fsdp2"
