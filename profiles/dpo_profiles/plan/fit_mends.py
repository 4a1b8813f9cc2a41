"""What would make a profile fit where no searched setting does: the smallest change of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.plan.fit import SMALLEST_LENGTH_TOKENS, Fit, Searcher
from dpo_profiles.plan.fit_engines import changed, with_backend
from dpo_profiles.plan.gpus import CARDS
from dpo_profiles.schema import Backend, Profile

GIB = 1 << 30
MOST_GPUS = 1024
SHARDING: tuple[Backend, ...] = ("deepspeed-zero3", "fsdp2")

Variant = tuple[str, Profile]
"""A change in words, and the profile that has it."""


def mends(searcher: Searcher, fit: Fit) -> list[str]:
    """The smallest change of each kind that makes the nearest setting fit, smallest kind first; may be empty."""
    nearest = fit.best[0]
    found = []
    left = nearest.choice.headroom_bytes
    if left >= 0:
        found.append(
            f"a reserve of {left / GIB:.1f} GiB or less instead of {fit.reserve_bytes / GIB:.1f} GiB"
        )
    share = fit.reserve_bytes / searcher.capacity
    for kind in (_evaluation, _quantization, _length, _rank, _adapter, _gpus, _cards):
        change = _first(searcher, kind(nearest.profile), share)
        if change:
            found.append(change)
    return found


def _first(searcher: Searcher, variants: Iterator[Variant], share: float) -> str:
    """The first of these that fits, in words."""
    for said, profile in variants:
        try:
            headroom = searcher.headroom(profile)
        except ProfileError:
            continue
        if headroom >= share * profile.hardware.capacity_bytes:
            return f"{said}, which leaves {headroom / GIB:.1f} GiB"
    return ""


def _evaluation(profile: Profile) -> Iterator[Variant]:
    if profile.eval.micro_batch_pairs > profile.train.micro_batch_pairs:
        yield "eval.micro_batch_pairs=1", changed(profile, "eval", micro_batch_pairs=1)


def _quantization(profile: Profile) -> Iterator[Variant]:
    if profile.quantization.kind == "none" and profile.adapter.kind == "lora":
        variant = changed(profile, "quantization", kind="nf4")
        engine = profile.engine
        yield (
            "quantization.kind=nf4",
            with_backend(variant, engine.backend, engine.nodes, engine.gpus_per_node),
        )
    elif profile.quantization.kind == "nf4" and not profile.quantization.double_quantization:
        yield (
            "quantization.double_quantization=true",
            changed(profile, "quantization", double_quantization=True),
        )


def _length(profile: Profile) -> Iterator[Variant]:
    length = profile.data.max_length_tokens // 2
    while length >= SMALLEST_LENGTH_TOKENS:
        yield f"data.max_length_tokens={length}", changed(profile, "data", max_length_tokens=length)
        length //= 2


def _rank(profile: Profile) -> Iterator[Variant]:
    r = profile.adapter.r // 2 if profile.adapter.kind == "lora" else 0
    while r >= 1:
        yield f"adapter.r={r}", changed(profile, "adapter", r=r)
        r //= 2


def _adapter(profile: Profile) -> Iterator[Variant]:
    if profile.adapter.kind == "none":
        yield "adapter.kind=lora", changed(profile, "adapter", kind="lora")


def _gpus(profile: Profile) -> Iterator[Variant]:
    """Doubled counts under an engine that shards."""
    engine = profile.engine
    backends = (engine.backend,) if engine.backend in SHARDING else SHARDING
    factor = 2
    while factor * engine.world_size <= MOST_GPUS:
        for backend in backends:
            count = factor * engine.world_size
            one_node = engine.nodes == 1 and count <= max(8, engine.gpus_per_node)
            nodes = 1 if one_node else engine.nodes * factor
            gpus = count if one_node else engine.gpus_per_node
            yield f"{count} GPUs with {backend}", with_backend(profile, backend, nodes, gpus)
        factor *= 2


def _cards(profile: Profile) -> Iterator[Variant]:
    for card in sorted(CARDS, key=lambda card: card.capacity_bytes):
        if card.capacity_bytes > profile.hardware.capacity_bytes:
            nominal = " (nominal capacity)" if card.nominal else ""
            variant = msgspec.structs.replace(profile, hardware=card.hardware)
            yield f'--gpu "{card.name}"{nominal}', variant
