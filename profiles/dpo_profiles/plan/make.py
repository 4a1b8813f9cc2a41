"""A plan for a profile, by arithmetic alone."""

from __future__ import annotations

import msgspec

from dpo_profiles.plan import report
from dpo_profiles.plan.architecture import Architecture, round_architecture
from dpo_profiles.plan.find import find_architecture
from dpo_profiles.plan.host import disk_bytes, host_ram_bytes
from dpo_profiles.plan.phases import Estimate, estimate
from dpo_profiles.plan.report import Gpu, ModelSize, Plan, RankPlan
from dpo_profiles.plan.tensors import plain_parameters, trainable_parameters
from dpo_profiles.plan.workload import Workload, workload_of
from dpo_profiles.schema import Profile

GIB = 1 << 30
UPDATE = f"{report.ACTIVATIONS}.update"
"""What the update itself takes for a moment."""


def make_plan(profile: Profile) -> Plan:
    """What the run should cost, per GPU, component and phase.

    Shards are counted with their padding, so that all ranks are equal.

    Raises:
        PlanUnavailableError: the model's architecture is not known on this machine.
        ProfileError: a target module that the model lacks, or an unreadable engine file.
    """
    model = planned_architecture(profile)
    workload = workload_of(profile, model)
    counted = estimate(workload)
    capacity = profile.hardware.capacity_bytes
    rank = _rank(counted, capacity)
    fits = capacity == 0 or rank.nvml_bytes.high <= capacity
    return Plan(
        profile=profile.name,
        world_size=profile.engine.world_size,
        gpu=Gpu(name=profile.hardware.gpu, capacity_bytes=capacity),
        model=ModelSize(
            name=profile.model.base,
            parameters=model.parameters,
            trainable_parameters=trainable_parameters(workload),
        ),
        per_gpu=[msgspec.structs.replace(rank, rank=number) for number in range(profile.engine.world_size)],
        host_ram_bytes=host_ram_bytes(profile, workload, counted.peak_allocated),
        disk_bytes=disk_bytes(profile, workload),
        fits=fits,
        calibrated=workload.calibrated,
        advice=_advice(profile, workload, rank, fits),
    )


def planned_architecture(profile: Profile) -> Architecture:
    """The model that a profile's plan is of: its round figure, or what its config.json says.

    Raises:
        PlanUnavailableError: the architecture is not known on this machine.
    """
    if profile.model.parameters:
        return round_architecture(profile.model.base, profile.model.parameters)
    return find_architecture(profile.model.base, profile.name)


def _rank(counted: Estimate, capacity: int) -> RankPlan:
    components = {name: max(parts[name] for parts in counted.phases.values()) for name in report.ALLOCATED}
    components[report.CACHE_FRAGMENTATION] = counted.gap.cache.high
    components[report.CONTEXT_COMMUNICATION] = counted.gap.context.high
    return RankPlan(
        rank=0,
        components=components,
        phases=counted.phases,
        resident_bytes=sum(counted.phases["step"].values()) - counted.parts["step"][UPDATE],
        peak_allocated_bytes=counted.peak_allocated,
        nvml_bytes=counted.nvml,
        headroom_bytes=capacity - counted.nvml.high if capacity else 0,
        parts=counted.parts,
        cache_fragmentation_bytes=counted.gap.cache,
        context_communication_bytes=counted.gap.context,
    )


def _advice(profile: Profile, workload: Workload, rank: RankPlan, fits: bool) -> list[str]:
    advice = []
    if not profile.hardware.capacity_bytes:
        advice.append(
            "hardware.capacity_bytes is 0, so nothing was compared: set it to what NVML reports for one GPU"
        )
    if workload.full and profile.hardware.capacity_bytes:
        advice.append(_share_of_all(profile, rank))
    if not fits:
        over = -rank.headroom_bytes / GIB
        advice.append(f"up to {over:.1f} GiB a GPU too much: {_mend(profile, rank)}")
    if workload.quantized and workload.model.plain:
        held = sum(parameter.total_bytes for parameter in plain_parameters(workload)) / GIB
        advice.append(
            f"experts and routers are parameters and no layers (transformers 5): they are not quantised and "
            f"take {held:.1f} GiB in all"
        )
    if not workload.calibrated:
        advice.append(
            "no measurement of this kind of job and card is behind activations, cache and context: "
            "nvml_bytes.high leaves a fifth of the peak for that"
        )
    return advice


def _share_of_all(profile: Profile, rank: RankPlan) -> str:
    """What training all weights takes of all GPUs together, in GB of 1e9 bytes."""
    ranks, step = profile.engine.world_size, rank.phases["step"]
    models = ranks * (step[report.POLICY_WEIGHTS] + step[report.REFERENCE_WEIGHTS])
    taken = models + ranks * step[report.OPTIMIZER_STATES]
    gradients, capacity = ranks * step[report.GRADIENTS], ranks * profile.hardware.capacity_bytes
    room = "fit" if gradients <= capacity - taken else "do not fit"
    return (
        f"weights and optimizer take {taken / 1e9:.0f} of {capacity / 1e9:.0f} GB "
        f"({100 * models / capacity:.2f} % are the two models); gradients of {gradients / 1e9:.0f} GB "
        f"{room} in the {(capacity - taken) / 1e9:.0f} GB left"
    )


def _mend(profile: Profile, rank: RankPlan) -> str:
    capacity = profile.hardware.capacity_bytes
    if profile.adapter.kind == "none":
        return "train an adapter (adapter.kind lora), or take more GPUs"
    if rank.resident_bytes > capacity:
        if profile.quantization.kind == "none":
            return "the weights alone do not fit; set quantization.kind to nf4"
        if profile.engine.backend in ("single", "ddp"):
            return (
                "the weights alone do not fit; take a sharding engine.backend on a card that holds one copy"
            )
        return "the shards alone do not fit; take more GPUs"
    if sum(rank.phases["load"].values()) > capacity:
        return "loading puts the whole base on each GPU; take fsdp2, which shards layer by layer"
    if not profile.train.gradient_checkpointing:
        return "set train.gradient_checkpointing to true"
    if max(profile.train.micro_batch_pairs, profile.eval.micro_batch_pairs) > 1:
        return "set train.micro_batch_pairs and eval.micro_batch_pairs to 1, and accumulate more"
    if profile.quantization.kind == "nf4" and not profile.quantization.double_quantization:
        return "set quantization.double_quantization to true"
    return "lower data.max_length_tokens, or take more GPUs with deepspeed-zero3 or fsdp2"
