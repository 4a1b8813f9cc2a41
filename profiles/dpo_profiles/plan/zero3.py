"""What DeepSpeed's ZeRO-3 keeps besides shards, by its own JSON file."""

from __future__ import annotations

from typing import Any

import msgspec

from dpo_profiles.engine_files import AUTO

PERSISTENCE_KEY = "stage3_param_persistence_threshold"


class Zero3(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that memory depends on, in stored elements: packed codes count as what holds them.

    Defaults are DeepSpeed's own (runtime/zero/config.py).
    """

    persistence: int = 100_000
    """Parameters up to this size stay whole on each rank, besides their shard."""
    max_live: int = 1_000_000_000
    """Gathered elements at most, prefetched ones included.

    `stage3_max_reuse_distance`, within which a parameter is not given back, is not read: it looks along what was
    recorded from one forward pass to the next (partitioned_param_coordinator.py, `__params_to_release`,
    `reset_step`). With the reference's pass before each of the policy's, no record spans a forward pass and its
    backward pass. On two CPU ranks a distance of 1e9 kept nothing; without the reference's pass, 3 of 4 layers."""
    prefetch: int = 50_000_000
    reduce_bucket: int = 500_000_000
    contiguous_gradients: bool = True


def zero3_of(table: dict[str, Any], hidden_size: int) -> Zero3:
    """Settings from the file's `zero_optimization` table.

    "auto" becomes what transformers/integrations/deepspeed.py sets: hidden_size squared for the reduce
    bucket, 0.9 of that for the prefetch, and 10 x hidden_size for the threshold.
    """
    auto = {
        PERSISTENCE_KEY: 10 * hidden_size,
        "stage3_prefetch_bucket_size": int(0.9 * hidden_size * hidden_size),
        "reduce_bucket_size": hidden_size * hidden_size,
    }

    def number(key: str, default: int) -> int:
        said = table.get(key)
        if said == AUTO:
            return auto.get(key, default)
        return int(said) if isinstance(said, int | float) and not isinstance(said, bool) else default

    own = Zero3()
    return Zero3(
        persistence=number(PERSISTENCE_KEY, own.persistence),
        max_live=number("stage3_max_live_parameters", own.max_live),
        prefetch=number("stage3_prefetch_bucket_size", own.prefetch),
        reduce_bucket=number("reduce_bucket_size", own.reduce_bucket),
        contiguous_gradients=table.get("contiguous_gradients") is not False,
    )
