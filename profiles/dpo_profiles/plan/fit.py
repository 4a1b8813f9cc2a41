"""Settings under which a profile fits its card with a reserve, ranked by `fit_cost`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.plan.architecture import Architecture
from dpo_profiles.plan.explain import planned_workload
from dpo_profiles.plan.fit_cost import cost_of
from dpo_profiles.plan.fit_engines import (
    FSDP2_KEEP,
    USUAL,
    changed,
    contradiction,
    copyable,
    engine_file,
    engines,
    with_backend,
)
from dpo_profiles.plan.host import host_ram_bytes
from dpo_profiles.plan.phases import estimate
from dpo_profiles.plan.workload import Offload, Workload, workload_of
from dpo_profiles.rules import RULES
from dpo_profiles.schema import Profile

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
LENGTH_DIVISORS = (1, 2, 4)
SMALLEST_LENGTH_TOKENS = 64
SHOWN = 10
GIB = 1 << 30
KEEP_STEP = "reshard_after_forward false"
ON_GPU_STEP = "offload none"
SEARCHED = (
    "engine.backend",
    "engine.nodes",
    "engine.gpus_per_node",
    "engine.deepspeed_file",
    "engine.accelerate_file",
    "quantization.storage_dtype",
    "model.autocast_dtype",
    "data.max_length_tokens",
    "train.micro_batch_pairs",
    "train.gradient_accumulation_steps",
    "train.gradient_checkpointing",
)
"""Fields that the search may change."""
_RESERVE = re.compile(r"(\d+(?:\.\d+)?)\s*(%|GiB|MiB)", re.IGNORECASE)

Mode = tuple[Offload, bool]
"""How an engine file shards: what it offloads, and whether layers are given back after their forward pass."""
USUAL_MODE: Mode = ("none", True)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One combination of settings."""

    set: dict[str, Any]
    """Field to value, where it differs from the profile's."""
    headroom_bytes: int
    """Capacity minus the upper end of NVML's interval."""
    cost: float
    """By the model of `fit_cost`; the profile's own settings cost 1."""
    fits: bool
    """Whether the headroom is at least the reserve."""
    engine_file: str
    """What the engine's launcher reads; empty where it needs none. In `set` where it is not the profile's own."""
    offload: tuple[str, ...]
    """What rests in the host's memory: `parameters`, `optimizer` (with gradients), both or nothing."""
    reshard_after_forward: bool
    """Whether a layer that was gathered is given back after its forward pass; false under FSDP only."""
    host_ram_bytes: int
    """Of one host, which has to have that much; no figure of a host is known here."""
    steps_up: dict[str, int] = {}
    """The next larger setting to the bytes that it leaves above the reserve; negative is too much. Of shown ones."""
    why: str = ""
    """What speaks for the engine file, by these bytes. Of shown ones."""


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A choice and what there is to say about it."""

    choice: Choice
    profile: Profile
    contradiction: str
    """How the engine's own file contradicts these settings; empty where it does not."""


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found."""

    reserve_bytes: int
    batch_pairs: int
    """Pairs of one update, in every choice."""
    tried: int
    left_out: int
    """Combinations that no accumulation brings to the same batch."""
    best: list[Ranked]
    """Cheapest first; where nothing fits, those that miss by least first."""

    @property
    def fits(self) -> bool:
        """Whether anything does."""
        return bool(self.best) and self.best[0].choice.fits


class Searcher:
    """Plans variants of one profile."""

    def __init__(self, profile: Profile, reserve: str) -> None:
        """Look the model up.

        Args:
            profile: with the capacity of its card.
            reserve: bytes that stay free, as `10%`, `8GiB` or `512MiB`.

        Raises:
            ProfileError: no capacity, no such reserve, or what `make_plan` raises.
        """
        self.profile = profile
        self.capacity = profile.hardware.capacity_bytes
        if not self.capacity:
            raise ProfileError(
                f"{profile.name}: hardware.capacity_bytes: is 0, so nothing can be fitted to it; "
                "set it, or name a card with --gpu"
            )
        self.reserve_bytes = reserve_bytes(reserve, self.capacity)
        own = planned_workload(profile)
        self.model: Architecture = own.model
        self.own_cost = cost_of(own)

    def headroom(self, profile: Profile) -> int:
        """Capacity minus NVML's upper end, in bytes."""
        return profile.hardware.capacity_bytes - estimate(workload_of(profile, self.model)).nvml.high

    def choice(self, profile: Profile) -> Choice:
        """A variant's figures."""
        workload = workload_of(profile, self.model)
        counted = estimate(workload)
        headroom = self.capacity - counted.nvml.high
        return Choice(
            set=changes(self.profile, profile),
            headroom_bytes=headroom,
            cost=round(cost_of(workload) / self.own_cost, 4),
            fits=headroom >= self.reserve_bytes,
            engine_file=engine_file(profile),
            offload=_offloaded(workload),
            reshard_after_forward=workload.sharding.reshards,
            host_ram_bytes=host_ram_bytes(profile, workload, counted.peak_allocated),
        )


def search(searcher: Searcher) -> Fit:
    """The best of all combinations: cheapest, then fewest changes; none fits where the first does not.

    Those of the profile's own length come first, since a shorter one cuts pairs. Micro-batches of the same tokens
    cost and take the same, so the one nearest to the profile's length stands for them. Offloading is planned where
    the same settings do not fit without it: it costs more and is of no other use. A micro-batch above one that does
    not fit is not planned, since nothing that is kept shrinks with it.
    """
    own = searcher.profile
    batch = own.train.micro_batch_pairs * own.train.gradient_accumulation_steps * own.engine.world_size
    kept: dict[tuple[Any, ...], tuple[Choice, Profile]] = {}
    too_many: dict[tuple[Any, ...], int] = {}
    left_out = 0
    for combination, mode in _combinations(searcher):
        train, engine = combination.train, combination.engine
        if batch % (train.micro_batch_pairs * engine.world_size):
            left_out += 1
            continue
        steps = batch // (train.micro_batch_pairs * engine.world_size)
        variant = changed(combination, "train", gradient_accumulation_steps=steps)
        tokens = train.micro_batch_pairs * variant.data.max_length_tokens
        key = (engine.backend, engine.world_size, mode, train.gradient_checkpointing, tokens)
        if key in kept or any(rule(variant) for rule in RULES):
            continue
        twin = kept.get((*key[:2], USUAL_MODE, *key[3:]))
        if mode[0] != "none" and twin and twin[0].fits:
            continue
        alike = (*key[:4], variant.data.max_length_tokens)
        if tokens > too_many.get(alike, tokens):
            continue
        variant = copyable(variant)
        kept[key] = (searcher.choice(variant), variant)
        if not kept[key][0].fits:
            too_many[alike] = tokens
    found = sorted(kept.values(), key=_order)
    return Fit(
        reserve_bytes=searcher.reserve_bytes,
        batch_pairs=batch,
        tried=len(kept),
        left_out=left_out,
        best=[_ranked(searcher, choice, profile) for choice, profile in _shown(found)],
    )


def reserve_bytes(text: str, capacity: int) -> int:
    """A reserve in bytes: a share of the capacity, or GiB or MiB.

    Raises:
        ProfileError: it is neither, or not less than the capacity.
    """
    match = _RESERVE.fullmatch(text.strip())
    if match is None:
        raise ProfileError(f"--reserve: {text!r} is no reserve; give a share as 10%, or a size as 8GiB")
    units = {"%": capacity / 100, "gib": float(1 << 30), "mib": float(1 << 20)}
    count = round(float(match[1]) * units[match[2].lower()])
    if count >= capacity:
        raise ProfileError(f"--reserve: {text} is the whole card or more; give less")
    return count


def changes(own: Profile, variant: Profile) -> dict[str, Any]:
    """Searched fields that differ, as `--set` takes them."""
    differing = {}
    for path in SEARCHED:
        section, _, name = path.partition(".")
        value = getattr(getattr(variant, section), name)
        if value != getattr(getattr(own, section), name):
            differing[path] = value
    return differing


def _combinations(searcher: Searcher) -> Iterator[tuple[Profile, Mode]]:
    """Every variant, the profile's own engine, length and settings first, and how its engine file shards."""
    own = searcher.profile
    lengths = [
        own.data.max_length_tokens // divisor
        for divisor in LENGTH_DIVISORS
        if divisor == 1 or own.data.max_length_tokens // divisor >= SMALLEST_LENGTH_TOKENS
    ]
    micro = own.train.micro_batch_pairs
    for engine in engines(own, layers_known=not searcher.model.is_round):
        workload = workload_of(engine, searcher.model)
        mode = (workload.offload, workload.sharding.reshards)
        for checkpointing in (own.train.gradient_checkpointing, not own.train.gradient_checkpointing):
            for length in lengths:
                for pairs in (micro, *(pairs for pairs in MICRO_BATCHES if pairs != micro)):
                    variant = changed(engine, "data", max_length_tokens=length)
                    variant = changed(
                        variant, "train", micro_batch_pairs=pairs, gradient_checkpointing=checkpointing
                    )
                    yield variant, mode


def _order(found: tuple[Choice, Profile]) -> tuple[float, ...]:
    choice = found[0]
    return ("data.max_length_tokens" in choice.set, choice.cost, len(choice.set), -choice.headroom_bytes)


def _shown(found: list[tuple[Choice, Profile]]) -> list[tuple[Choice, Profile]]:
    fitting = [pair for pair in found if pair[0].fits]
    if fitting:
        return fitting[:SHOWN]
    return sorted(found, key=lambda pair: (-pair[0].headroom_bytes, len(pair[0].set)))[:SHOWN]


def _ranked(searcher: Searcher, choice: Choice, profile: Profile) -> Ranked:
    spare = searcher.reserve_bytes
    steps = {name: searcher.headroom(variant) - spare for name, variant in _larger(choice, profile).items()}
    why = _why(profile, steps, choice)
    return Ranked(
        choice=msgspec.structs.replace(choice, steps_up=steps, why=why),
        profile=profile,
        contradiction=contradiction(profile),
    )


def _larger(choice: Choice, profile: Profile) -> dict[str, Profile]:
    """The next step up of each setting."""
    train, length, engine = profile.train, profile.data.max_length_tokens, profile.engine
    larger = {
        f"micro_batch_pairs {2 * train.micro_batch_pairs}": changed(
            profile, "train", micro_batch_pairs=2 * train.micro_batch_pairs
        ),
        f"max_length_tokens {2 * length}": changed(profile, "data", max_length_tokens=2 * length),
    }
    if train.gradient_checkpointing:
        larger["gradient_checkpointing false"] = changed(profile, "train", gradient_checkpointing=False)
    files = {}
    if choice.offload and engine.backend in USUAL:
        files[ON_GPU_STEP] = USUAL[engine.backend]
    elif choice.reshard_after_forward and engine.backend == "fsdp2":
        files[KEEP_STEP] = FSDP2_KEEP
    for name, file in files.items():
        larger[name] = with_backend(profile, engine.backend, engine.nodes, engine.gpus_per_node, file)
    return larger


def _why(profile: Profile, steps: dict[str, int], choice: Choice) -> str:
    if choice.offload:
        left = f": on the GPU {left_of(steps[ON_GPU_STEP])}" if ON_GPU_STEP in steps else ""
        return f"{' and '.join(choice.offload)} in host memory{left}"
    if not choice.reshard_after_forward:
        fewer = "one gather" if profile.adapter.kind == "lora" else "two gathers"
        return f"layers stay gathered until their backward pass: {fewer} a micro-batch instead of three"
    if KEEP_STEP in steps:
        return f"each layer is given back after its pass: kept gathered, {left_of(steps[KEEP_STEP])}"
    return "" if profile.engine.world_size == 1 else "parameters and optimizer stay on the GPUs"


def left_of(spare: int) -> str:
    """Bytes above the reserve, or below it, in words."""
    return f"{spare / GIB:.1f} GiB above the reserve" if spare >= 0 else f"{-spare / GIB:.1f} GiB too much"


def _offloaded(workload: Workload) -> tuple[str, ...]:
    there = {"parameters": workload.offloads_parameters, "optimizer": workload.offloads_optimizer}
    return tuple(name for name, offloaded in there.items() if offloaded)
