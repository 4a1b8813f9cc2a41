"""The engines, GPU counts and engine files that `--fit` tries: sharded as usual, kept gathered, or offloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dpo_profiles.engine_files import read_accelerate, read_deepspeed
from dpo_profiles.engine_rules import accelerate_contradictions, deepspeed_contradictions
from dpo_profiles.rules import storage_dtype_for
from dpo_profiles.schema import Backend, Profile
from dpo_profiles.source import SHIPPED_FOLDER

ZERO3 = str(SHIPPED_FOLDER / "zero3-auto.deepspeed.json")
"""The settings of the shipped zero3 profile, with batch and type left to the profile."""
ZERO3_OFFLOAD = str(SHIPPED_FOLDER / "zero3-offload.deepspeed.json")
"""torch's AdamW computes on the CPU: DeepSpeed's own would have to be compiled on each host, and an adapter is small."""
FSDP2 = ""
"""The trainer's own defaults, which are those of the shipped fsdp2 profile."""
FSDP2_KEEP = str(SHIPPED_FOLDER / "fsdp2-keep.accelerate.yaml")
FSDP2_OFFLOAD = str(SHIPPED_FOLDER / "fsdp2-offload.accelerate.yaml")
USUAL: dict[Backend, str] = {"deepspeed-zero3": ZERO3, "fsdp2": FSDP2}
"""Sharded on the GPUs, each layer given back after its pass."""
OFFLOADED: dict[Backend, str] = {"deepspeed-zero3": ZERO3_OFFLOAD, "fsdp2": FSDP2_OFFLOAD}


def engines(own: Profile, layers_known: bool) -> Iterator[Profile]:
    """The profile under each engine, GPU count and engine file, its own first.

    Args:
        own: the profile.
        layers_known: whether the model's layers are; without, what is gathered cannot be planned, and only
            the usual sharding is tried.
    """
    yield own
    for nodes, gpus in _counts(own):
        backends: tuple[Backend, ...] = ("single",)
        if nodes * gpus > 1:
            backends = tuple(dict.fromkeys((own.engine.backend, "deepspeed-zero3", "fsdp2")))
        for backend in backends:
            if backend == "single" and nodes * gpus > 1:
                continue
            for file in _files(own, backend, layers_known):
                yield with_backend(own, backend, nodes, gpus, file)


def with_backend(
    profile: Profile, backend: Backend, nodes: int, gpus_per_node: int, file: str | None = None
) -> Profile:
    """The profile under another engine, with what that engine needs of files and storage.

    Args:
        profile: as it is.
        backend: the engine.
        nodes: hosts.
        gpus_per_node: ranks on each.
        file: the engine's own; None takes the profile's where the engine stays, and the usual one where not.
    """
    if file is None:
        file = engine_file(profile) if backend == profile.engine.backend else USUAL.get(backend, "")
    same = file == engine_file(profile)
    zero3 = backend == "deepspeed-zero3"
    variant = changed(
        profile,
        "engine",
        backend=backend,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        deepspeed_file=file if zero3 else "",
        accelerate_file="" if zero3 else file,
    )
    if zero3 or not file or not same:
        variant = changed(variant, "model", autocast_dtype="none")
    if backend == "fsdp2" and variant.quantization.kind == "nf4":
        variant = changed(variant, "quantization", storage_dtype=storage_dtype_for(variant))
    return variant


def copyable(profile: Profile) -> Profile:
    """The profile with a shipped file that leaves its figures open, where its own shipped file contradicts them.

    A file that is not shipped stays: what else is in it is not known to be wanted elsewhere.
    """
    engine, file = profile.engine, engine_file(profile)
    if Path(file).parent != SHIPPED_FOLDER or engine.backend not in USUAL or not contradiction(profile):
        return profile
    return with_backend(profile, engine.backend, engine.nodes, engine.gpus_per_node, USUAL[engine.backend])


def engine_file(profile: Profile) -> str:
    """The file that the engine's launcher reads; empty where there is none."""
    return profile.engine.deepspeed_file or profile.engine.accelerate_file


def contradiction(profile: Profile) -> str:
    """How the engine's own file contradicts the profile; empty where it does not."""
    engine, problem = profile.engine, None
    if engine.deepspeed_file:
        problem = deepspeed_contradictions(profile, read_deepspeed(Path(engine.deepspeed_file)))
    elif engine.accelerate_file:
        problem = accelerate_contradictions(profile, read_accelerate(Path(engine.accelerate_file)))
    return problem or ""


def changed(profile: Profile, section: str, **values: Any) -> Profile:
    """The profile with other values in one table."""
    table = msgspec.structs.replace(getattr(profile, section), **values)
    return msgspec.structs.replace(profile, **{section: table})


def _files(own: Profile, backend: Backend, layers_known: bool) -> tuple[str, ...]:
    """Engine files to try, the profile's own first; optimizers of bitsandbytes need a GPU."""
    files = [engine_file(own)] if backend == own.engine.backend else []
    if backend in USUAL:
        files.append(USUAL[backend])
    if layers_known and backend == "fsdp2":
        files.append(FSDP2_KEEP)
    if layers_known and backend in OFFLOADED and own.optimizer.name == "adamw_torch":
        files.append(OFFLOADED[backend])
    return tuple(dict.fromkeys(files or [""]))


def _counts(own: Profile) -> list[tuple[int, int]]:
    """Nodes and GPUs of each, up to the profile's: powers of two, and all of a node."""
    nodes, gpus = own.engine.nodes, own.engine.gpus_per_node
    counts = [(1, 1 << power) for power in range(gpus.bit_length()) if 1 << power < gpus] + [(1, gpus)]
    counts += [(1 << power, gpus) for power in range(1, nodes.bit_length()) if 1 << power < nodes]
    return counts + ([(nodes, gpus)] if nodes > 1 else [])
