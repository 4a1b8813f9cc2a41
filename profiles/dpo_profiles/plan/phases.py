"""The plan of one rank by phase, from a workload."""

from __future__ import annotations

import msgspec

from dpo_profiles.plan import report, transient
from dpo_profiles.plan.nvml import Gap, Interval, gap, nvml
from dpo_profiles.plan.standing import Standing, standing
from dpo_profiles.plan.transient import Parts
from dpo_profiles.plan.workload import Workload


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """One rank, all figures in bytes."""

    phases: dict[str, dict[str, int]]
    """Phase to component."""
    parts: dict[str, dict[str, int]]
    """Phase to part, `component.part`; the parts of a component add up to it."""
    resident: int
    """What stands between two updates: weights, adapters, optimizer states, and gradients that stay."""
    peak_allocated: int
    gap: Gap
    nvml: Interval


def estimate(workload: Workload) -> Estimate:
    """Bytes by phase, torch's peak, and NVML's interval.

    Raises:
        ProfileError: a target that the model does not have.
    """
    held = standing(workload)
    parts = _parts(workload, held)
    phases = {phase: _components(detail) for phase, detail in parts.items()}
    totals = {phase: sum(components.values()) for phase, components in phases.items()}
    peak = max(totals.values())
    resident = (
        sum(held.weights.values())
        + held.reference
        + held.adapters
        + held.optimizer
        + (held.gradients if workload.gradients_stay else 0)
        + transient.workspace(workload)
    )
    working = max(total for phase, total in totals.items() if phase != "load") - resident
    logits = parts["forward"][f"{report.ACTIVATIONS}.logits"]
    between = gap(workload, max(0, working), logits)
    return Estimate(
        phases=phases,
        parts=parts,
        resident=resident,
        peak_allocated=peak,
        gap=between,
        nvml=nvml(workload, peak, between),
    )


def _parts(workload: Workload, held: Standing) -> dict[str, dict[str, int]]:
    """Parts by phase, from the second update on; where gradients accumulate, earlier ones are there."""
    earlier = held.gradients if workload.accumulates else 0
    # Under FSDP1 the peak is at the end of the backward pass, when every layer has its gradients.
    late = workload.sharding.backend == "fsdp" or workload.accumulates
    standing_gradients = held.standing_gradients if workload.accumulates else 0

    def phase(gradients: int, temporary: Parts) -> dict[str, int]:
        return _phase(held, held.adapters, gradients, held.optimizer, temporary)

    reference = workload.adapter_copies > 1
    return {
        "load": _phase(held, held.whole_adapters, 0, 0, transient.loading(workload, held)),
        "reference": phase(earlier, transient.no_gradient(workload, workload.tokens) if reference else {}),
        "forward": phase(earlier, transient.forward(workload)),
        "backward": phase(held.gradients if late else 0, transient.backward(workload)),
        "step": phase(held.step_gradients, transient.updating(workload, held)),
        "eval": phase(standing_gradients, transient.no_gradient(workload, workload.eval_tokens)),
        "save": phase(standing_gradients, transient.saving(workload)),
    }


def _phase(held: Standing, adapters: int, gradients: int, optimizer: int, temporary: Parts) -> dict[str, int]:
    parts = {f"{report.POLICY_WEIGHTS}.{name}": size for name, size in held.weights.items()}
    parts[f"{report.REFERENCE_WEIGHTS}.weights"] = held.reference
    parts[f"{report.ADAPTERS}.weights"] = adapters
    parts[f"{report.GRADIENTS}.gradients"] = gradients
    parts[f"{report.OPTIMIZER_STATES}.states"] = optimizer
    return parts | {f"{report.ACTIVATIONS}.{name}": size for name, size in temporary.items()}


def _components(parts: dict[str, int]) -> dict[str, int]:
    totals = dict.fromkeys(report.ALLOCATED, 0)
    for name, size in parts.items():
        totals[name.partition(".")[0]] += size
    return totals
