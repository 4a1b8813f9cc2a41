"""An engine file that contradicts its profile is refused with both values.

What the file leaves out, or leaves to "auto", contradicts nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dpo_profiles.engine_files import FALSE_WORDS, TRUE_WORDS, EngineFile, offloads_optimizer
from dpo_profiles.schema import Profile
from dpo_profiles.text import show

ACCELERATE_PRECISION = {"bf16": "bfloat16", "fp16": "float16", "no": "none"}
"""`mixed_precision` is what is cast around the model, not the model's own type: under `no` a bfloat16 base
computes in bfloat16 and a float32 adapter in float32, so it says nothing about model.compute_dtype."""

RESHARD_KEY = "fsdp_config.fsdp_reshard_after_forward"


class Pair(msgspec.Struct, frozen=True):
    """The same setting in the engine file and in the profile."""

    key: str
    """Path in the engine file."""
    field: str
    """Path in the profile, or the sum it comes from."""
    value: Any
    """The profile's value."""


def deepspeed_contradictions(profile: Profile, file: EngineFile) -> str | None:
    """The first contradiction of a DeepSpeed JSON, or None."""
    train, optimizer = profile.train, profile.optimizer
    if file.get("zero_optimization.stage") != 3:
        stage = file.get("zero_optimization.stage")
        said = "no zero_optimization.stage" if stage is None else f"zero_optimization.stage {show(stage)}"
        return f"{file.path.name} has {said} but engine.backend is deepspeed-zero3; write stage 3"
    batch = train.micro_batch_pairs * train.gradient_accumulation_steps * profile.engine.world_size
    pairs = [
        Pair(
            "gradient_accumulation_steps",
            "train.gradient_accumulation_steps",
            train.gradient_accumulation_steps,
        ),
        Pair("train_micro_batch_size_per_gpu", "train.micro_batch_pairs", train.micro_batch_pairs),
        Pair("train_batch_size", "micro_batch_pairs x gradient_accumulation_steps x ranks", batch),
        Pair("gradient_clipping", "train.max_grad_norm", train.max_grad_norm),
        Pair("optimizer.params.lr", "optimizer.learning_rate", optimizer.learning_rate),
        Pair("optimizer.params.weight_decay", "optimizer.weight_decay", optimizer.weight_decay),
        Pair("optimizer.params.eps", "optimizer.epsilon", optimizer.epsilon),
        Pair("optimizer.params.betas", "optimizer.beta1 and beta2", [optimizer.beta1, optimizer.beta2]),
    ]
    return _first(pairs, file) or _deepspeed_dtype(profile, file) or _host_optimizer(profile, file)


def accelerate_contradictions(profile: Profile, file: EngineFile) -> str | None:
    """The first contradiction of an accelerate YAML, or None."""
    engine = profile.engine
    version = 2 if engine.backend == "fsdp2" else 1
    # accelerate takes FSDP1 where the file names no version.
    if (file.get("fsdp_config.fsdp_version") or 1) != version:
        said = file.get("fsdp_config.fsdp_version") or "none, which is 1,"
        return f"{file.path.name} has fsdp_version {said} but engine.backend is {engine.backend}; make them agree"
    said = file.get(RESHARD_KEY)
    if version == 2 and said is not None and str(said).lower() not in (*TRUE_WORDS, *FALSE_WORDS):
        return (
            f"{file.path.name} has {RESHARD_KEY} {show(said)}, which FSDP2 does not take; write true or false"
        )
    pairs = [
        Pair("distributed_type", f"the type that engine.backend {engine.backend} takes", "FSDP"),
        Pair("num_processes", "engine.nodes x gpus_per_node", engine.world_size),
        Pair("num_machines", "engine.nodes", engine.nodes),
        Pair(
            "gradient_accumulation_steps",
            "train.gradient_accumulation_steps",
            profile.train.gradient_accumulation_steps,
        ),
    ]
    return _first(pairs, file) or _accelerate_dtype(profile, file) or _host_optimizer(profile, file)


def _first(pairs: list[Pair], file: EngineFile) -> str | None:
    for pair in pairs:
        said = file.get(pair.key)
        if said is not None and said != pair.value:
            return _both(file, pair.key, said, pair.field, pair.value)
    return None


def _both(file: EngineFile, key: str, said: object, field: str, value: object) -> str:
    return f"{file.path.name} has {key} {show(said)} but {field} is {show(value)}; make them agree"


def _host_optimizer(profile: Profile, file: EngineFile) -> str | None:
    """Optimizers of bitsandbytes need a GPU.

    For one that is offloaded accelerate takes DeepSpeed's Adam in its place unless told not to, and with Adam's decay
    instead of AdamW's (accelerate/utils/deepspeed.py, `map_pytorch_optim_to_deepspeed`).
    """
    name = profile.optimizer.name
    if name == "adamw_torch" or not offloads_optimizer(file):
        return None
    key = "zero_optimization.offload_optimizer.device"
    if file.get(key) is None:
        key = "fsdp_config.fsdp_offload_params"
    return _both(file, key, file.get(key), "optimizer.name", name)


def _deepspeed_dtype(profile: Profile, file: EngineFile) -> str | None:
    """`bf16.enabled` and `fp16.enabled` against the arithmetic; "auto" is bfloat16, or float32 on a CPU."""
    dtype = profile.model.compute_dtype
    for key, name in (("bf16", "bfloat16"), ("fp16", "float16")):
        enabled = file.get(f"{key}.enabled")
        possible = {True, False} if dtype == "auto" and name == "bfloat16" else {dtype == name}
        if enabled is not None and enabled not in possible:
            return _both(file, f"{key}.enabled", enabled, "model.compute_dtype", dtype)
    return None


def _accelerate_dtype(profile: Profile, file: EngineFile) -> str | None:
    """`mixed_precision` against the autocast; which casts are harmful is the preflight's to say."""
    dtype, said = profile.model.autocast_dtype, file.get("mixed_precision")
    # YAML 1.1 reads a bare `no` as false.
    named = ACCELERATE_PRECISION.get("no" if said is None or said is False else str(said))
    if named == dtype:
        return None
    if said is None:
        # accelerate's launcher takes `no` where the file names none.
        return (
            f"{file.path.name} has no mixed_precision, which is no, but model.autocast_dtype is "
            f"{show(dtype)}; make them agree"
        )
    return _both(file, "mixed_precision", said, "model.autocast_dtype", dtype)
