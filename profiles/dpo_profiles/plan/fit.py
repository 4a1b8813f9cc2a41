"""Settings under which a profile fits its card with a reserve, ranked by `fit_cost`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from dpo_profiles.engine_files import read_accelerate, read_deepspeed
from dpo_profiles.engine_rules import accelerate_contradictions, deepspeed_contradictions
from dpo_profiles.errors import ProfileError
from dpo_profiles.plan.architecture import Architecture
from dpo_profiles.plan.explain import planned_workload
from dpo_profiles.plan.fit_cost import cost_of
from dpo_profiles.plan.phases import estimate
from dpo_profiles.plan.workload import workload_of
from dpo_profiles.rules import RULES, storage_dtype_for
from dpo_profiles.schema import Backend, Profile

DEFAULT_RESERVE = "10%"
MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
LENGTH_DIVISORS = (1, 2, 4)
SMALLEST_LENGTH_TOKENS = 64
SHOWN = 10
DEEPSPEED_FILE = Path(str(resources.files("dpo_profiles"))) / "shipped" / "zero3.deepspeed.json"
"""For profiles that name none."""
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


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A choice and what there is to say about it."""

    choice: Choice
    profile: Profile
    steps_up: dict[str, int]
    """The next larger setting to the bytes that it leaves above the reserve; negative is too much."""
    engine_file: str
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
        headroom = self.capacity - estimate(workload).nvml.high
        return Choice(
            set=changes(self.profile, profile),
            headroom_bytes=headroom,
            cost=round(cost_of(workload) / self.own_cost, 4),
            fits=headroom >= self.reserve_bytes,
        )


def search(searcher: Searcher) -> Fit:
    """The best of all combinations: cheapest, then fewest changes; none fits where the first does not.

    Those of the profile's own length come first, since a shorter one cuts pairs. Micro-batches of the same tokens
    cost and take the same, so the one nearest to the profile's length stands for them.
    """
    own = searcher.profile
    batch = own.train.micro_batch_pairs * own.train.gradient_accumulation_steps * own.engine.world_size
    kept: dict[tuple[Any, ...], tuple[Choice, Profile]] = {}
    left_out = 0
    for combination in _combinations(own):
        train, engine = combination.train, combination.engine
        if batch % (train.micro_batch_pairs * engine.world_size):
            left_out += 1
            continue
        steps = batch // (train.micro_batch_pairs * engine.world_size)
        variant = changed(combination, "train", gradient_accumulation_steps=steps)
        tokens = train.micro_batch_pairs * variant.data.max_length_tokens
        key = (engine.backend, engine.world_size, train.gradient_checkpointing, tokens)
        if key in kept or any(rule(variant) for rule in RULES):
            continue
        kept[key] = (searcher.choice(variant), variant)
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


def with_backend(profile: Profile, backend: Backend, nodes: int, gpus_per_node: int) -> Profile:
    """The profile under another engine, with what that engine needs of files and storage."""
    own = profile.engine
    same = backend == own.backend
    deepspeed = own.deepspeed_file if same else str(DEEPSPEED_FILE)
    accelerate = own.accelerate_file if same else ""
    variant = changed(
        profile,
        "engine",
        backend=backend,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        deepspeed_file=deepspeed if backend == "deepspeed-zero3" else "",
        accelerate_file=accelerate,
    )
    if not accelerate:
        variant = changed(variant, "model", autocast_dtype="none")
    if backend == "fsdp2" and variant.quantization.kind == "nf4":
        variant = changed(variant, "quantization", storage_dtype=storage_dtype_for(variant))
    return variant


def changed(profile: Profile, section: str, **values: Any) -> Profile:
    """The profile with other values in one table."""
    table = msgspec.structs.replace(getattr(profile, section), **values)
    return msgspec.structs.replace(profile, **{section: table})


def _combinations(own: Profile) -> Iterator[Profile]:
    """Every variant, the profile's own engine, length and settings first."""
    lengths = [
        own.data.max_length_tokens // divisor
        for divisor in LENGTH_DIVISORS
        if divisor == 1 or own.data.max_length_tokens // divisor >= SMALLEST_LENGTH_TOKENS
    ]
    micro = own.train.micro_batch_pairs
    for engine in _engines(own):
        for checkpointing in (own.train.gradient_checkpointing, not own.train.gradient_checkpointing):
            for length in lengths:
                for pairs in (micro, *(pairs for pairs in MICRO_BATCHES if pairs != micro)):
                    variant = changed(engine, "data", max_length_tokens=length)
                    yield changed(
                        variant, "train", micro_batch_pairs=pairs, gradient_checkpointing=checkpointing
                    )


def _engines(own: Profile) -> Iterator[Profile]:
    """The profile under each engine and GPU count, its own first."""
    yield own
    for nodes, gpus in _counts(own):
        backends: tuple[Backend, ...] = ("single",)
        if nodes * gpus > 1:
            backends = tuple(dict.fromkeys((own.engine.backend, "deepspeed-zero3", "fsdp2")))
        for backend in backends:
            if backend == "single" and nodes * gpus > 1:
                continue
            if (backend, nodes, gpus) != (own.engine.backend, own.engine.nodes, own.engine.gpus_per_node):
                yield with_backend(own, backend, nodes, gpus)


def _counts(own: Profile) -> list[tuple[int, int]]:
    """Nodes and GPUs of each, up to the profile's: powers of two, and all of a node."""
    nodes, gpus = own.engine.nodes, own.engine.gpus_per_node
    counts = [(1, 1 << power) for power in range(gpus.bit_length()) if 1 << power < gpus] + [(1, gpus)]
    counts += [(1 << power, gpus) for power in range(1, nodes.bit_length()) if 1 << power < nodes]
    return counts + ([(nodes, gpus)] if nodes > 1 else [])


def _order(found: tuple[Choice, Profile]) -> tuple[float, ...]:
    choice = found[0]
    return ("data.max_length_tokens" in choice.set, choice.cost, len(choice.set), -choice.headroom_bytes)


def _shown(found: list[tuple[Choice, Profile]]) -> list[tuple[Choice, Profile]]:
    fitting = [pair for pair in found if pair[0].fits]
    if fitting:
        return fitting[:SHOWN]
    return sorted(found, key=lambda pair: (-pair[0].headroom_bytes, len(pair[0].set)))[:SHOWN]


def _ranked(searcher: Searcher, choice: Choice, profile: Profile) -> Ranked:
    train, length = profile.train, profile.data.max_length_tokens
    larger = {
        f"micro_batch_pairs {2 * train.micro_batch_pairs}": changed(
            profile, "train", micro_batch_pairs=2 * train.micro_batch_pairs
        ),
        f"max_length_tokens {2 * length}": changed(profile, "data", max_length_tokens=2 * length),
    }
    if train.gradient_checkpointing:
        larger["gradient_checkpointing false"] = changed(profile, "train", gradient_checkpointing=False)
    spare = searcher.reserve_bytes
    return Ranked(
        choice=choice,
        profile=profile,
        steps_up={name: searcher.headroom(variant) - spare for name, variant in larger.items()},
        engine_file=_contradiction(profile),
    )


def _contradiction(profile: Profile) -> str:
    engine, problem = profile.engine, None
    if engine.deepspeed_file:
        problem = deepspeed_contradictions(profile, read_deepspeed(Path(engine.deepspeed_file)))
    elif engine.accelerate_file:
        problem = accelerate_contradictions(profile, read_accelerate(Path(engine.accelerate_file)))
    return problem or ""
