"""From torch's peak to what NVML shows: cache and fragmentation, context and communication, as intervals."""

from __future__ import annotations

import msgspec

from dpo_profiles.plan import calibration as fitted
from dpo_profiles.plan.workload import Workload


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes between two ends."""

    low: int
    high: int


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What lies between torch's peak allocated and NVML's use."""

    cache: Interval
    """Allocator's cache and fragmentation: reserved minus allocated."""
    context: Interval
    """CUDA context and NCCL: NVML's use minus reserved."""


def gap(workload: Workload, working: int, logits: int) -> Gap:
    """Both terms, for `working` bytes that come and go and logits of `logits` bytes."""
    figures = fitted.NVML_ONE_GPU if workload.world_size == 1 else fitted.NVML_MORE_GPUS
    return Gap(
        cache=Interval(
            low=round(figures.share_low * working),
            high=round(figures.share_high * working + fitted.NVML_LOGITS_SHARE * logits),
        ),
        context=Interval(low=figures.fixed_low_bytes, high=figures.fixed_high_bytes),
    )


def nvml(workload: Workload, peak: int, between: Gap) -> Interval:
    """What NVML shows at the peak, with the error that the planned peak itself may have."""
    over = fitted.ALLOCATED_ERROR if workload.calibrated else fitted.UNCALIBRATED_ERROR
    return Interval(
        low=round(peak * (1 - fitted.ALLOCATED_ERROR)) + between.cache.low + between.context.low,
        high=round(peak * (1 + over)) + between.cache.high + between.context.high,
    )
