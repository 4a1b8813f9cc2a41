"""The upper end of a plan, against published peaks that nvidia-smi showed (foundation-model-stack)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpo_profiles.load import load_profile
from dpo_profiles.plan import make_plan
from dpo_profiles.plan.bounds import CONTEXT_BYTES, working_bytes
from dpo_profiles.plan.components import sharding_of
from dpo_profiles.plan.find import find_architecture

GIB = 1 << 30
LLAMA_3_8B, MISTRAL_7B = 128_256, 32_000


@pytest.mark.parametrize(
    ("vocabulary", "gpus", "packed_sequences", "nvml_gib"),
    [
        (MISTRAL_7B, 1, 16, 57.751),
        (MISTRAL_7B, 2, 4, 20.686),
        (MISTRAL_7B, 4, 4, 19.095),
        (LLAMA_3_8B, 4, 8, 75.972),
    ],
)
def test_published_peaks_lie_within_the_interval(
    tmp_path: Path, vocabulary: int, gpus: int, packed_sequences: int, nvml_gib: float
) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": vocabulary,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    overrides = [
        f"model.base={tmp_path}",
        "model.compute_dtype=bfloat16",
        "quantization.storage_dtype=bfloat16",
        "adapter.target_modules=['q_proj', 'k_proj', 'v_proj', 'o_proj']",
        # A pair is two sequences.
        f"data.max_length_tokens={4096 * packed_sequences // 2}",
    ]
    if gpus > 1:
        overrides += ["engine.backend=fsdp2", f"engine.gpus_per_node={gpus}"]
    nvml = make_plan(load_profile("demo", overrides)).per_gpu[0].nvml_bytes
    assert nvml.low / GIB <= nvml_gib <= nvml.high / GIB


def test_the_upper_end_adds_working_memory_its_cache_and_a_context() -> None:
    profile = load_profile("demo")
    model = find_architecture(profile.model.base, profile.name)
    working = working_bytes(profile, model, sharding_of(profile, model))
    rank = make_plan(profile).per_gpu[0]
    assert rank.nvml_bytes.high == rank.resident_bytes + round(1.75 * working) + CONTEXT_BYTES
