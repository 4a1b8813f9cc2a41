"""Rules that join two fields of a profile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dpo_profiles.engine_files import read_accelerate, read_deepspeed
from dpo_profiles.engine_rules import accelerate_contradictions, deepspeed_contradictions
from dpo_profiles.errors import ProfileError
from dpo_profiles.schema import Profile

Rule = Callable[[Profile], str | None]
"""Gives "FIELD: what is wrong; what to do", or None."""


def refuse_contradictions(profile: Profile, source: str) -> None:
    """Raise ProfileError for the first pair of fields, or field and engine file, that cannot both hold."""
    for rule in RULES:
        problem = rule(profile)
        if problem is not None:
            raise ProfileError(f"{source}: {problem}")
    if profile.engine.deepspeed_file:
        deepspeed = read_deepspeed(_existing(profile.engine.deepspeed_file, "deepspeed_file", source))
        _refuse(deepspeed_contradictions(profile, deepspeed), "deepspeed_file", source)
    if profile.engine.accelerate_file:
        accelerate = read_accelerate(_existing(profile.engine.accelerate_file, "accelerate_file", source))
        _refuse(accelerate_contradictions(profile, accelerate), "accelerate_file", source)


def storage_dtype_for(profile: Profile) -> str:
    """The type that FSDP needs the packed codes in: that of the arithmetic, which on a GPU is bfloat16."""
    dtype = profile.model.compute_dtype
    return "bfloat16" if dtype == "auto" else dtype


def _existing(text: str, field: str, source: str) -> Path:
    if not os.path.lexists(text):
        raise ProfileError(f"{source}: engine.{field}: no such file {text}; correct the path")
    return Path(text)


def _refuse(problem: str | None, field: str, source: str) -> None:
    if problem is not None:
        raise ProfileError(f"{source}: engine.{field}: {problem}")


def _deepspeed_file(profile: Profile) -> str | None:
    engine = profile.engine
    if engine.backend == "deepspeed-zero3":
        return None if engine.deepspeed_file else _needs("deepspeed_file", engine.backend)
    return _unread("deepspeed_file", engine.backend) if engine.deepspeed_file else None


def _accelerate_file(profile: Profile) -> str | None:
    engine = profile.engine
    if engine.backend == "fsdp":
        return None if engine.accelerate_file else _needs("accelerate_file", engine.backend)
    if engine.backend == "fsdp2" or not engine.accelerate_file:
        return None
    return _unread("accelerate_file", engine.backend)


def _needs(field: str, backend: str) -> str:
    return f"engine.{field}: is empty but engine.backend is {backend}; name the engine's own file"


def _unread(field: str, backend: str) -> str:
    return f'engine.{field}: is not read by engine.backend {backend}; set it to ""'


def _single_has_one_rank(profile: Profile) -> str | None:
    engine = profile.engine
    if engine.backend != "single" or engine.world_size == 1:
        return None
    return (
        f"engine.backend: is single but nodes x gpus_per_node is {engine.nodes} x {engine.gpus_per_node}; "
        "take ddp, deepspeed-zero3 or fsdp2, or set both to 1"
    )


def _evaluation_has_pairs(profile: Profile) -> str | None:
    data = profile.data
    if not profile.eval.every_steps or data.heldout_pairs or data.heldout_fraction:
        return None
    return (
        f"eval.every_steps: is {profile.eval.every_steps} but no pairs are held out; "
        "set data.heldout_pairs or data.heldout_fraction above 0, or eval.every_steps to 0"
    )


def _fsdp_shards_codes(profile: Profile) -> str | None:
    quantization, wanted = profile.quantization, storage_dtype_for(profile)
    sharded = profile.engine.backend in ("fsdp", "fsdp2") and quantization.kind == "nf4"
    if not sharded or quantization.storage_dtype == wanted:
        return None
    return (
        f"quantization.storage_dtype: is {quantization.storage_dtype} but model.compute_dtype is "
        f"{profile.model.compute_dtype} and {profile.engine.backend} shards codes only in the type of the "
        f"arithmetic; set it to {wanted}"
    )


def _autocast_comes_from_a_file(profile: Profile) -> str | None:
    dtype = profile.model.autocast_dtype
    if dtype == "none" or profile.engine.accelerate_file:
        return None
    return (
        f"model.autocast_dtype: is {dtype} but engine.accelerate_file, whose mixed_precision does it, is empty; "
        "set it to none, or name the file under fsdp or fsdp2"
    )


def _flash_attention_is_16_bit(profile: Profile) -> str | None:
    if profile.model.attention != "flash_attention_2" or profile.model.compute_dtype != "float32":
        return None
    return (
        "model.attention: is flash_attention_2, which has no float32 kernel, but model.compute_dtype is "
        "float32; take sdpa, or bfloat16"
    )


def _smoothing_is_used(profile: Profile) -> str | None:
    loss = profile.loss
    if not loss.label_smoothing or loss.kind == "robust":
        return None
    return (
        f"loss.label_smoothing: is {loss.label_smoothing:g} but loss.kind {loss.kind} does not use it; "
        "set it to 0, or take robust"
    )


def _constant_has_no_warmup(profile: Profile) -> str | None:
    schedule = profile.schedule
    if schedule.kind != "constant" or not schedule.warmup_ratio:
        return None
    return (
        f"schedule.warmup_ratio: is {schedule.warmup_ratio:g} but schedule.kind constant does not warm up; "
        "set it to 0, or take constant_with_warmup"
    )


def _shipped_pairs_are_one_file(profile: Profile) -> str | None:
    data = profile.data
    if data.name != "shipped":
        return None
    if data.revision:
        return f'data.revision: is {data.revision!r} but the shipped pairs have none; set it to ""'
    if data.split != "train":
        return f"data.split: is {data.split!r} but the shipped pairs have only train; set it to train"
    return None


def _deepspeed_keeps_float32_masters(profile: Profile) -> str | None:
    if profile.engine.backend != "deepspeed-zero3" or profile.adapter.master_dtype == "float32":
        return None
    return (
        f"adapter.master_dtype: is {profile.adapter.master_dtype} but deepspeed-zero3 keeps float32 masters whatever it "
        "says; set it to float32"
    )


def _targets_are_named_once(profile: Profile) -> str | None:
    names = profile.adapter.target_modules
    twice = next((name for i, name in enumerate(names) if name in names[:i] or not name.strip()), None)
    if twice is None:
        return None
    return f"adapter.target_modules: {twice!r} is empty or stands there twice; name each layer once"


def _named_card_has_a_capacity(profile: Profile) -> str | None:
    hardware = profile.hardware
    if not hardware.gpu or hardware.capacity_bytes:
        return None
    return (
        f"hardware.capacity_bytes: is 0 but hardware.gpu names {hardware.gpu}; give the bytes that nvidia-smi reports "
        "for it, or take both from `--gpu NAME`"
    )


RULES: tuple[Rule, ...] = (
    _single_has_one_rank,
    _deepspeed_file,
    _accelerate_file,
    _evaluation_has_pairs,
    _fsdp_shards_codes,
    _autocast_comes_from_a_file,
    _flash_attention_is_16_bit,
    _smoothing_is_used,
    _constant_has_no_warmup,
    _shipped_pairs_are_one_file,
    _targets_are_named_once,
    _deepspeed_keeps_float32_masters,
    _named_card_has_a_capacity,
)
