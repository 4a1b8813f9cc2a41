"""Where each figure of a plan comes from: the formula of a part with its numbers put in, and its source.

A formula is arithmetic in which each number may have words before it: `layers 80 x hidden_size 8,192`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.plan import calibration, report
from dpo_profiles.plan.explain_activations import ACTIVATION_PARTS
from dpo_profiles.plan.formula import Formula, n
from dpo_profiles.plan.make import planned_architecture
from dpo_profiles.plan.nf4 import BLOCK_WEIGHTS, NESTED_BLOCK_SCALES, state_bytes
from dpo_profiles.plan.phases import estimate
from dpo_profiles.plan.report import Plan, RankPlan
from dpo_profiles.plan.sharding import Parameter
from dpo_profiles.plan.standing import BLOCK_8BIT, SMALLEST_8BIT_ELEMENTS
from dpo_profiles.plan.tensors import (
    linear_parameters,
    plain_parameters,
    trainable_parameters,
    trained_parameters,
    unquantized_parameters,
)
from dpo_profiles.plan.workload import Workload, workload_of
from dpo_profiles.schema import Profile

AT_THE_PEAK = "peak"
"""The phase of cache and context, which stand beside torch's peak."""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One part in the phases in which it has the same bytes."""

    part: str
    phases: list[str]
    bytes: int
    formula: str
    source: str


def explain(profile: Profile, plan: Plan, component: str) -> list[Explained]:
    """Parts of one component that are not 0, with formula and source; empty where the component is 0.

    Args:
        profile: what was planned.
        plan: the plan of that profile.
        component: one of `report.COMPONENTS`.

    Raises:
        ProfileError: there is no such component.
    """
    if component not in report.COMPONENTS:
        raise ProfileError(
            f"--explain: {component!r} is no component; the components are {', '.join(report.COMPONENTS)}"
        )
    workload, rank = planned_workload(profile), plan.per_gpu[0]
    if component in (report.CACHE_FRAGMENTATION, report.CONTEXT_COMMUNICATION):
        return _beside_the_peak(rank, component, workload)
    found: dict[tuple[str, int, str], Explained] = {}
    for phase, parts in rank.parts.items():
        for name, size in parts.items():
            if not size or name.partition(".")[0] != component:
                continue
            formula = formula_of(workload, phase, name)
            key = (name, size, formula.text)
            if key in found:
                found[key].phases.append(phase)
                continue
            part = name.partition(".")[2]
            found[key] = Explained(
                part=part, phases=[phase], bytes=size, formula=formula.text, source=formula.source
            )
    order = list(dict.fromkeys(entry.part for entry in found.values()))
    return sorted(found.values(), key=lambda entry: order.index(entry.part))


def formula_of(workload: Workload, phase: str, name: str) -> Formula:
    """The formula of `component.part` in a phase.

    Raises:
        KeyError: the part is not one of a plan's.
    """
    component, _, part = name.partition(".")
    if component == report.ACTIVATIONS:
        return ACTIVATION_PARTS[part](workload, phase)
    return STANDING_PARTS[name](workload, phase)


def planned_workload(profile: Profile) -> Workload:
    """The job that a profile's plan is of.

    Raises:
        PlanUnavailableError: the model's architecture is not known on this machine.
        ProfileError: an engine file cannot be read, or all weights of a quantised base are to be trained.
    """
    return workload_of(profile, planned_architecture(profile))


def _beside_the_peak(rank: RankPlan, component: str, workload: Workload) -> list[Explained]:
    """Both ends of an interval."""
    counted = estimate(workload)
    figures = calibration.NVML_ONE_GPU if workload.world_size == 1 else calibration.NVML_MORE_GPUS
    if component == report.CONTEXT_COMMUNICATION:
        interval = rank.context_communication_bytes
        low, high = f"bytes {n(figures.fixed_low_bytes)}", f"bytes {n(figures.fixed_high_bytes)}"
        source = "NVML's use minus what torch reserves, measured with one or with more GPUs (calibration.py)"
    else:
        interval = rank.cache_fragmentation_bytes
        working = max(sum(parts.values()) for phase, parts in counted.phases.items() if phase != "load")
        working = max(0, working - counted.resident)
        low = f"share {n(figures.share_low)} x peak allocated minus resident {n(working)}"
        logits = counted.parts["forward"][f"{report.ACTIVATIONS}.logits"]
        high = (
            f"share {n(figures.share_high)} x peak allocated minus resident {n(working)} "
            f"+ share {n(calibration.NVML_LOGITS_SHARE)} x logits {n(logits)}"
        )
        source = "what the allocator keeps, measured with one or with more GPUs (calibration.py)"
    ends = (("low", interval.low, low), ("high", interval.high, high))
    return [
        Explained(part=part, phases=[AT_THE_PEAK], bytes=size, formula=formula, source=source)
        for part, size, formula in ends
    ]


def _ranks(workload: Workload, trained: bool = False) -> str:
    """The division among the ranks, where there is one."""
    sharded = workload.sharding.shards and not (trained and workload.replicated_adapters)
    return f" / ranks {n(workload.world_size)}" if sharded else ""


def _elements(parameters: list[Parameter]) -> int:
    return sum(parameter.elements * parameter.count for parameter in parameters)


def _quantized_weights(workload: Workload) -> int:
    return sum(linear.weights * linear.count for linear in workload.model.layered)


def _codes(workload: Workload, phase: str) -> Formula:
    weights = _quantized_weights(workload)
    return Formula(
        text=f"weights of linear layers {n(weights)} / codes in a byte 2{_ranks(workload)}",
        source="bitsandbytes packs two NF4 codes in a byte (functional.py, quantize_4bit); shards are padded",
    )


def _linears(workload: Workload, phase: str) -> Formula:
    weights = workload.model.linear_weights
    return Formula(
        text=f"weights of linear layers {n(weights)} x bytes {workload.compute_bytes}{_ranks(workload)}",
        source="the arithmetic's type; shards are padded",
    )


def _absmax(workload: Workload, phase: str) -> Formula:
    model, nested = workload.model, workload.double_quantization
    each = f"(1 + 4 / {NESTED_BLOCK_SCALES})" if nested else "bytes 4"
    count = sum(linear.count for linear in model.layered)
    return Formula(
        text=f"weights of linear layers {n(_quantized_weights(workload))} / block {BLOCK_WEIGHTS} x {each} "
        f"+ layers {n(count)} x tables {n(state_bytes(0, nested))}",
        source="one scale for each block of 64 weights (quantize_blockwise); it is no parameter, "
        "so every rank has all of it",
    )


def _unquantized(workload: Workload, phase: str) -> Formula:
    model = workload.model
    matrices = model.embedding_matrices * model.vocab_size * model.hidden_size
    plain = _elements(plain_parameters(workload)) if workload.quantized else 0
    rest = _elements(unquantized_parameters(workload)) - matrices - plain
    experts = f" + experts and routers {n(plain)}" if plain else ""
    return Formula(
        text=f"(embedding and head {model.embedding_matrices} x vocab_size {n(model.vocab_size)} "
        f"x hidden_size {n(model.hidden_size)} + norms and biases {n(rest)}{experts}) "
        f"x bytes {workload.compute_bytes}{_ranks(workload)}",
        source="embeddings, head, norms and biases are not quantised (transformers leaves the head out)"
        + (", nor are experts, which are one parameter a layer (transformers 5)" if plain else ""),
    )


def _persistent(workload: Workload, phase: str) -> Formula:
    limit = workload.sharding.persistence_elements

    def small(parameters: list[Parameter]) -> int:
        return _elements([parameter for parameter in parameters if parameter.elements <= limit])

    linears, rest = small(linear_parameters(workload)), small(unquantized_parameters(workload))
    stored = workload.storage_bytes if workload.quantized else workload.compute_bytes
    text = (
        f"elements of small linear layers {n(linears)} x bytes {stored} "
        f"+ of small embeddings, norms and biases {n(rest)} x bytes {workload.compute_bytes}"
    )
    source = (
        f"ZeRO-3 keeps parameters of up to {n(limit)} stored elements whole on each rank, besides their "
        "shard (stage3_param_persistence_threshold)"
    )
    if workload.offloads_parameters and not workload.full:
        text = f"({text}) x (1 + 1 / ranks {n(workload.world_size)})"
        source += ", which is not offloaded either (partition_parameters.py, ds_persist)"
    return Formula(text=text, source=source)


def _reference(workload: Workload, phase: str) -> Formula:
    parts = [_linears(workload, phase).text, _unquantized(workload, phase).text]
    return Formula(
        text=" + ".join(parts),
        source="DPO without an adapter holds a second, frozen model of the policy's size (arXiv 2305.18290)",
    )


def _adapters(workload: Workload, phase: str) -> Formula:
    trainable, copies = trainable_parameters(workload), workload.adapter_copies
    if phase == "load":
        widest = max(workload.adapter_bytes, workload.master_bytes)
        return Formula(
            text=f"adapters {copies} x trainable parameters {n(trainable)} x bytes {widest}",
            source="adapters are made whole and sharded later; policy and reference have one each",
        )
    persistent = _small_adapters(workload) if workload.zero3 else 0
    if workload.offloads_parameters:
        return Formula(
            text=f"parameters kept whole {n(persistent)} x (adapters {copies} + shards of the reference "
            f"{copies - 1} / ranks {n(workload.world_size)}) x bytes {workload.adapter_bytes}",
            source="the policy's shards are in the host's memory; ZeRO-3 keeps small parameters whole, and their "
            "shards too where nothing trains them (partition_parameters.py, ds_persist)",
        )
    kept = f" + parameters kept whole {n(persistent)}" if persistent else ""
    return Formula(
        text=f"adapters {copies} x (trainable parameters {n(trainable)}{_ranks(workload, True)}{kept}) "
        f"x bytes {workload.adapter_bytes}",
        source="LoRA has r x (in + out) parameters for each target (arXiv 2106.09685); policy and reference "
        "have one adapter each",
    )


def _small_adapters(workload: Workload) -> int:
    """Parameters of one adapter that ZeRO-3 keeps whole."""
    limit = workload.sharding.persistence_elements
    return _elements([parameter for parameter in trained_parameters(workload) if parameter.elements <= limit])


def _gradients(workload: Workload, phase: str) -> Formula:
    float32 = " + float32 4" if phase == "step" and workload.zero3 else ""
    return Formula(
        text=f"trainable parameters {n(trainable_parameters(workload))}{_ranks(workload, True)} "
        f"x (bytes {workload.adapter_bytes}{float32})",
        source="one buffer in the adapter's type, from the second micro-batch on"
        + ("; DeepSpeed's update has them in float32 too (stage3.py)" if float32 else ""),
    )


def _optimizer(workload: Workload, phase: str) -> Formula:
    master = f" + master {workload.master_bytes}" if workload.master_bytes else ""
    if workload.eight_bit_moments:
        return _eight_bit_optimizer(workload, master)
    return Formula(
        text=f"trainable parameters {n(trainable_parameters(workload))}{_ranks(workload, True)} "
        f"x (moments 2 x bytes {workload.moment_bytes}{master})",
        source="AdamW keeps two moments" + ("; DeepSpeed a float32 master too (stage3.py)" if master else ""),
    )


def _eight_bit_optimizer(workload: Workload, master: str) -> Formula:
    sharded = workload.sharding.shards and not workload.replicated_adapters
    small = large = 0
    for parameter in trained_parameters(workload):
        elements = workload.sharding.elements(parameter) if sharded else parameter.elements
        if elements < SMALLEST_8BIT_ELEMENTS:
            small += elements * parameter.count
        else:
            large += elements * parameter.count
    return Formula(
        text=f"a rank's large parameters {n(large)} x (moments 2 x (1 + scale 4 / block {BLOCK_8BIT}){master}) "
        f"+ its small ones {n(small)} x (moments 2 x float32 4{master})",
        source=f"bitsandbytes keeps 8-bit moments in blocks from {n(SMALLEST_8BIT_ELEMENTS)} elements on"
        + ("; DeepSpeed a float32 master too (stage3.py)" if master else ""),
    )


STANDING_PARTS: dict[str, Callable[[Workload, str], Formula]] = {
    "policy_weights.codes": _codes,
    "policy_weights.linears": _linears,
    "policy_weights.absmax": _absmax,
    "policy_weights.unquantized": _unquantized,
    "policy_weights.persistent": _persistent,
    "reference_weights.weights": _reference,
    "adapters.weights": _adapters,
    "gradients.gradients": _gradients,
    "optimizer_states.states": _optimizer,
}
"""Part to the formula that it has in a phase."""
