from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dpo_profiles.engine_files import read_accelerate, read_deepspeed
from dpo_profiles.load import load_profile
from dpo_profiles.plan import make_plan
from dpo_profiles.schema import Profile


def told_apart_from_zero3(profile: Profile) -> dict[str, object]:
    """Fields that differ from those of zero3, besides names and the engine."""
    zero3 = load_profile("zero3")
    mine, theirs = msgspec.to_builtins(profile), msgspec.to_builtins(zero3)
    return {
        f"{section}.{name}": value
        for section, fields in mine.items()
        if isinstance(fields, dict) and section != "engine"
        for name, value in fields.items()
        if value != theirs[section][name]
    }


@pytest.mark.parametrize("name", ["fsdp", "fsdp2", "multinode"])
def test_the_72b_jobs_are_told_the_same_training(name: str) -> None:
    assert told_apart_from_zero3(load_profile(name)) == {}


def test_the_job_as_first_published_differs_in_what_it_got_wrong() -> None:
    seed = load_profile("fsdp-seed")
    assert told_apart_from_zero3(seed) == {
        "model.autocast_dtype": "float16",
        "model.attention": "eager",
        "data.max_length_tokens": 32,
        "data.over_long": "truncate",
        "train.gradient_accumulation_steps": 1,
        "optimizer.learning_rate": 1e-6,
    }
    assert seed.engine.backend == "fsdp"
    file = read_accelerate(Path(seed.engine.accelerate_file))
    assert file.get("mixed_precision") == "fp16"
    assert file.get("fsdp_config.mixed_precision.param_dtype") == "float16"


def test_zero3_has_the_published_buckets_and_threshold() -> None:
    zero = read_deepspeed(Path(load_profile("zero3").engine.deepspeed_file)).get("zero_optimization")
    assert zero["stage"] == 3
    assert zero["reduce_bucket_size"] == zero["stage3_prefetch_bucket_size"] == 104_857_600
    assert zero["stage3_param_persistence_threshold"] == 1_048_576


@pytest.mark.parametrize(("name", "version"), [("fsdp", 1), ("fsdp2", 2)])
def test_no_engine_file_of_the_mended_jobs_casts_around_the_model(name: str, version: int) -> None:
    file = read_accelerate(Path(load_profile(name).engine.accelerate_file))
    assert file.get("mixed_precision") == "no"
    assert file.get("fsdp_config.fsdp_version") == version


def test_fsdp2_loads_on_each_rank_and_says_nothing_of_version_1() -> None:
    config = read_accelerate(Path(load_profile("fsdp2").engine.accelerate_file)).get("fsdp_config")
    assert config["fsdp_cpu_ram_efficient_loading"] is False
    assert config["fsdp_reshard_after_forward"] is True
    of_version_1 = {"fsdp_sharding_strategy", "fsdp_sync_module_states", "fsdp_use_orig_params"}
    assert not of_version_1 & config.keys()


def test_multinode_is_zero3_on_two_hosts() -> None:
    engine, zero3 = load_profile("multinode").engine, load_profile("zero3").engine
    assert (engine.nodes, engine.world_size) == (2, 16)
    assert msgspec.structs.replace(engine, nodes=1) == zero3


def test_a_7b_fits_one_gpu() -> None:
    profile = load_profile("single")
    plan = make_plan(profile)
    assert (profile.engine.backend, profile.adapter.path, plan.world_size) == ("single", "", 1)
    assert plan.model.parameters == 7_615_616_512
    assert plan.fits
    assert plan.gpu.capacity_bytes == 85_520_809_984


def test_the_72b_job_is_expressed_in_full() -> None:
    job = load_profile("zero3")
    assert job.model.base == "Qwen/Qwen2.5-72B-Instruct"
    assert (job.model.compute_dtype, job.model.pad_token) == ("bfloat16", "<|image_pad|>")
    assert (job.quantization.kind, job.quantization.double_quantization) == ("nf4", True)
    assert job.quantization.storage_dtype == "bfloat16"
    assert (job.adapter.path, job.adapter.r, job.adapter.alpha, job.adapter.dropout) == (
        "./SFT_LoRA",
        16,
        16,
        0.05,
    )
    assert len(job.adapter.target_modules) == 7
    assert (job.data.name, job.data.max_length_tokens) == ("mlabonne/orpo-dpo-mix-40k", 512)
    assert job.data.heldout_fraction == 0.01
    assert (job.loss.kind, job.loss.beta) == ("sigmoid", 0.1)
    assert (job.train.max_steps, job.train.gradient_accumulation_steps, job.train.seed) == (10, 16, 1234)
    assert (job.optimizer.name, job.optimizer.learning_rate) == ("adamw_torch", 1e-5)
    assert (job.schedule.kind, job.schedule.warmup_ratio) == ("linear", 0.1)
    assert (job.eval.every_steps, job.save.every_steps) == (2, 5)
    assert job.engine.world_size == 8
    assert job.hardware.capacity_bytes == 85_520_809_984


def test_the_demo_needs_nothing_but_the_package_and_a_small_model() -> None:
    demo = load_profile("demo")
    assert demo.model.base == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert demo.data.name == "shipped"
    assert (demo.engine.backend, demo.engine.world_size) == ("single", 1)
    assert demo.adapter.path == ""
