from __future__ import annotations

import msgspec

from dpo_profiles.load import load_profile


def test_zero3_and_fsdp_are_told_the_same_training() -> None:
    zero3, fsdp = load_profile("zero3"), load_profile("fsdp")
    same = msgspec.structs.replace(fsdp, name=zero3.name, description=zero3.description, engine=zero3.engine)
    assert same == zero3


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
