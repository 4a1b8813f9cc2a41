"""Names the samples behind a value that is not finite, where a run of ours wrote them down."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dpo_telemetry.events import Sample
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.nonfinite import CODE

SHOWN = 8
SHOWN_RANKS = 4


def with_samples(alert: HealthAlert, samples: Iterable[Sample]) -> HealthAlert:
    """The alert with rank and sample ids of its first step, if it is of a value that is not finite."""
    if alert.code != CODE:
        return alert
    of_step = [sample for sample in samples if sample.step == alert.step]
    # Rank 0 names the pairs of one metric; others that were not finite in that step have the same.
    behind = [sample for sample in of_step if sample.metric == alert.metric] or of_step
    if not behind:
        return alert
    named = "; ".join(f"rank {sample.rank}: {_ids(sample.sample_ids)}" for sample in behind[:SHOWN_RANKS])
    if len(behind) > SHOWN_RANKS:
        named += f"; and of {len(behind) - SHOWN_RANKS} more ranks"
    return msgspec.structs.replace(alert, message=f"{alert.message}; samples of {named}")


def _ids(ids: list[int]) -> str:
    shown = ", ".join(map(str, ids[:SHOWN]))
    return f"{shown} and {len(ids) - SHOWN} more" if len(ids) > SHOWN else shown
