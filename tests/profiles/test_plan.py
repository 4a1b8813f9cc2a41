from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dpo_profiles.errors import PlanUnavailableError, ProfileError
from dpo_profiles.load import load_profile, shipped_names
from dpo_profiles.plan import Plan, make_plan
from dpo_profiles.plan.report import ALLOCATED, COMPONENTS, PHASES

GIB = 1 << 30
TINY = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}


def plan_of(name: str, *overrides: str) -> Plan:
    return make_plan(load_profile(name, overrides))


def write_config(folder: Path, **changes: object) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**TINY, **changes}))
    return str(folder)


def test_parameters_are_counted_exactly() -> None:
    demo, large = plan_of("demo").model, plan_of("zero3").model
    assert demo.parameters == 134_515_008
    assert demo.trainable_parameters == 4_884_480
    assert large.parameters == 72_706_203_648
    assert large.trainable_parameters == 210_534_400


def test_a_72b_rank_holds_its_shard_of_codes_and_all_of_the_scales() -> None:
    weights = plan_of("fsdp").per_gpu[0].phases["step"]["policy_weights"]
    codes, scales, embeddings = 4.087, 1.038, 0.580
    assert weights / GIB == pytest.approx(codes + scales + embeddings, rel=1e-3)


def test_without_double_quantisation_the_scales_are_four_times_as_large() -> None:
    plain = plan_of("fsdp", "quantization.double_quantization=false").per_gpu[0]
    nested = plan_of("fsdp").per_gpu[0]
    more = plain.phases["step"]["policy_weights"] - nested.phases["step"]["policy_weights"]
    assert more / GIB == pytest.approx(4.087 - 1.038, rel=1e-3)


@pytest.mark.parametrize("name", ["zero3", "fsdp2"])
def test_a_rank_loads_its_shards_one_whole_layer_and_the_tensor_that_arrives(name: str) -> None:
    rank = plan_of(name).per_gpu[0]
    assert rank.phases["load"]["policy_weights"] == rank.phases["step"]["policy_weights"]
    parts = rank.parts["load"]
    assert parts["activations.whole_layer"] / GIB == pytest.approx(0.409, rel=1e-3)
    assert parts["activations.arriving"] == 2 * 8192 * 152_064
    assert sum(rank.phases["load"].values()) / GIB < 11


def test_fsdp1_loads_the_whole_quantised_base_on_each_rank() -> None:
    parts, phases = plan_of("fsdp").per_gpu[0].parts["load"], plan_of("fsdp").per_gpu[0].phases["load"]
    assert (phases["policy_weights"] + parts["activations.whole_base"]) / GIB == pytest.approx(
        38.38, rel=1e-3
    )


def test_one_process_holds_the_adapter_twice_and_its_moments_in_float32() -> None:
    plan = plan_of("demo")
    step, trainable = plan.per_gpu[0].phases["step"], plan.model.trainable_parameters
    assert step["adapters"] == 2 * 4 * trainable
    assert step["gradients"] == 4 * trainable
    assert step["optimizer_states"] == 2 * 4 * trainable
    assert step["reference_weights"] == 0


def test_zero3_keeps_float32_masters_with_the_moments_and_small_parameters_whole() -> None:
    plan = plan_of("zero3")
    step, trainable = plan.per_gpu[0].phases["step"], plan.model.trainable_parameters
    shard = trainable / 8
    assert step["optimizer_states"] == pytest.approx(12 * shard, rel=1e-6)
    assert step["gradients"] == pytest.approx((2 + 4) * shard, rel=1e-6)
    # Every LoRA matrix is below the file's threshold, so each rank keeps it and its shard, in both copies.
    assert step["adapters"] == pytest.approx(2 * 2 * (trainable + shard), rel=1e-6)


def test_zero3_reads_the_persistence_threshold_from_its_engine_file(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}')
    plan = plan_of("zero3", f"engine.deepspeed_file={file}")
    shard = plan.model.trainable_parameters / 8
    assert plan.per_gpu[0].phases["step"]["adapters"] == pytest.approx(2 * 2 * shard, rel=1e-6)


def test_an_8_bit_optimizer_takes_about_a_quarter_of_the_moments() -> None:
    full = plan_of("demo").per_gpu[0].components["optimizer_states"]
    small = plan_of("demo", "optimizer.name=adamw_8bit").per_gpu[0].components["optimizer_states"]
    assert 0.25 < small / full < 0.30


def test_an_unquantised_base_takes_its_type_times_its_parameters() -> None:
    plan = plan_of("demo", "quantization.kind=none", "model.compute_dtype=bfloat16")
    assert plan.per_gpu[0].components["policy_weights"] == 2 * 134_515_008


def test_auto_is_float32_on_a_cpu_and_bfloat16_where_a_gpu_is_named() -> None:
    cpu = plan_of("demo", "quantization.kind=none").per_gpu[0].components["policy_weights"]
    gpu = (
        plan_of("demo", "quantization.kind=none", "hardware.gpu=H100", "hardware.capacity_bytes=85520809984")
        .per_gpu[0]
        .components["policy_weights"]
    )
    assert (cpu, gpu) == (4 * 134_515_008, 2 * 134_515_008)


def test_ddp_holds_on_each_rank_what_one_process_holds() -> None:
    single = plan_of("demo")
    ddp = plan_of("demo", "engine.backend=ddp", "engine.gpus_per_node=2")
    assert [rank.rank for rank in ddp.per_gpu] == [0, 1]
    for phase, parts in single.per_gpu[0].phases.items():
        standing = {name: size for name, size in parts.items() if name != "activations"}
        assert ddp.per_gpu[1].phases[phase].items() >= standing.items()


def test_ddp_keeps_a_bucket_copy_of_the_gradients() -> None:
    plan = plan_of("demo", "engine.backend=ddp", "engine.gpus_per_node=2")
    buckets = plan.per_gpu[0].parts["backward"]["activations.buckets"]
    assert buckets == plan.per_gpu[0].components["gradients"] == 4 * plan.model.trainable_parameters


def test_fsdp2_pads_the_first_dimension_to_the_ranks() -> None:
    overrides = ["engine.backend=fsdp2", "engine.gpus_per_node=3", "quantization.storage_dtype=bfloat16"]
    plan = plan_of("demo", *overrides, "adapter.target_modules=['q_proj']", "adapter.r=16")
    a_elements, b_elements = 6 * 576, 192 * 16
    assert plan.per_gpu[0].components["gradients"] == 4 * 30 * (a_elements + b_elements)


@pytest.mark.parametrize("name", shipped_names())
def test_every_rank_phase_and_component_is_there(name: str) -> None:
    plan = plan_of(name)
    assert [rank.rank for rank in plan.per_gpu] == list(range(plan.world_size))
    for rank in plan.per_gpu:
        assert tuple(rank.phases) == PHASES
        assert all(tuple(parts) == ALLOCATED for parts in rank.phases.values())
        assert tuple(rank.components) == COMPONENTS
        for component in ALLOCATED:
            assert rank.components[component] == max(parts[component] for parts in rank.phases.values())
        for phase, parts in rank.phases.items():
            for component, size in parts.items():
                detail = rank.parts[phase]
                assert size == sum(n for part, n in detail.items() if part.startswith(f"{component}."))
        totals = {phase: sum(parts.values()) for phase, parts in rank.phases.items()}
        assert rank.resident_bytes == totals["step"] - rank.parts["step"]["activations.update"]
        assert rank.peak_allocated_bytes == max(totals.values())
        assert rank.peak_allocated_bytes < rank.nvml_bytes.high
        assert rank.nvml_bytes.low < rank.nvml_bytes.high
        assert rank.components["cache_fragmentation"] == rank.cache_fragmentation_bytes.high
        assert rank.components["context_communication"] == rank.context_communication_bytes.high


def test_the_json_has_the_keys_that_programs_rely_on() -> None:
    data = plan_of("zero3").to_json()
    found = json.loads(data)
    assert list(found) == [
        "profile",
        "world_size",
        "gpu",
        "model",
        "per_gpu",
        "host_ram_bytes",
        "disk_bytes",
        "fits",
        "calibrated",
        "advice",
    ]
    assert found["gpu"] == {"name": "NVIDIA H100 80GB HBM3", "capacity_bytes": 85_520_809_984}
    assert list(found["per_gpu"][0]) == [
        "rank",
        "components",
        "phases",
        "resident_bytes",
        "peak_allocated_bytes",
        "nvml_bytes",
        "headroom_bytes",
        "parts",
        "cache_fragmentation_bytes",
        "context_communication_bytes",
    ]
    assert found["calibrated"] is False
    assert msgspec.json.decode(data, type=Plan) == plan_of("zero3")


def test_fits_compares_the_upper_end_with_the_capacity() -> None:
    high = plan_of("zero3").per_gpu[0].nvml_bytes.high
    exact = plan_of("zero3", f"hardware.capacity_bytes={high}")
    short = plan_of("zero3", f"hardware.capacity_bytes={high - 1}")
    assert (exact.fits, exact.per_gpu[0].headroom_bytes) == (True, 0)
    assert (short.fits, short.per_gpu[0].headroom_bytes) == (False, -1)
    assert "too much" in short.advice[0]


def test_an_unknown_capacity_is_said_and_compared_with_nothing() -> None:
    plan = plan_of("demo")
    assert plan.fits
    assert plan.per_gpu[0].headroom_bytes == 0
    assert plan.advice[0].startswith("hardware.capacity_bytes is 0, so nothing was compared")


def test_weights_that_do_not_fit_are_told_apart_from_activations_that_do_not() -> None:
    small = plan_of("zero3", f"hardware.capacity_bytes={6 * GIB}")
    loaded = plan_of("fsdp", f"hardware.capacity_bytes={40 * GIB}")
    long = plan_of("zero3", "data.max_length_tokens=65536")
    assert "the shards alone do not fit" in small.advice[0]
    assert "loading puts the whole base on each GPU" in loaded.advice[0]
    assert "lower data.max_length_tokens" in long.advice[0]


def test_a_longer_sequence_and_no_checkpointing_raise_the_upper_end() -> None:
    def high(*overrides: str) -> int:
        return plan_of("demo", *overrides).per_gpu[0].nvml_bytes.high

    assert high() < high("data.max_length_tokens=512") < high("data.max_length_tokens=1024")
    assert high("train.gradient_checkpointing=true") < high()
    assert high() < high("model.attention=eager")


def test_disk_grows_with_the_checkpoints_that_are_kept() -> None:
    kept = plan_of("demo", "save.keep_last=1").disk_bytes
    assert (
        kept
        < plan_of("demo").disk_bytes
        < plan_of("demo", "save.keep_last=0", "save.every_steps=1").disk_bytes
    )


def test_a_known_model_is_found_by_its_name_whoever_owns_the_copy() -> None:
    plan = plan_of("demo", "model.base=someone/SmolLM2-135M-Instruct")
    assert plan.model.parameters == 134_515_008
    assert plan.model.name == "someone/SmolLM2-135M-Instruct"


def test_a_local_folder_is_read_and_qwen_has_biases_on_q_k_and_v(tmp_path: Path) -> None:
    plan = plan_of("demo", f"model.base={write_config(tmp_path / 'tiny')}")
    attention = 64 * 64 + 2 * 64 * 32 + 64 * 64 + (64 + 32 + 32)
    layer = attention + 3 * 64 * 128 + 2 * 64
    assert plan.model.parameters == 2 * layer + 2 * 256 * 64 + 64


def test_a_llama_has_biases_only_where_its_config_says_so(tmp_path: Path) -> None:
    plain = plan_of("demo", f"model.base={write_config(tmp_path / 'a', model_type='llama')}")
    biased = plan_of(
        "demo", f"model.base={write_config(tmp_path / 'b', model_type='llama', attention_bias=True)}"
    )
    assert biased.model.parameters - plain.model.parameters == 2 * (64 + 32 + 32 + 64)


def test_a_downloaded_model_is_found_in_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--tiny" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    write_config(snapshot, tie_word_embeddings=True)
    assert plan_of("demo", "model.base=some/tiny").model.parameters < 134_515_008


def test_an_unknown_model_has_no_plan_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PlanUnavailableError) as caught:
        plan_of("demo", "model.base=some/unheard-of")
    assert caught.value.message.startswith(
        "demo: model.base: no config.json of 'some/unheard-of' is on this machine"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model_type": "mamba"},
            "model_type: 'mamba' is not counted, so there is no plan; known are llama, mistral, qwen, qwen2",
        ),
        ({"hidden_size": "64"}, "Expected `int`, got `str` - at `$.hidden_size`"),
        ({"num_attention_heads": 0}, "num_attention_heads: is 0; sizes are 1 or more"),
    ],
)
def test_a_config_that_cannot_be_counted_is_one_line(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(PlanUnavailableError) as caught:
        plan_of("demo", f"model.base={write_config(tmp_path / 'tiny', **changes)}")
    assert expected in caught.value.message
    assert "\n" not in caught.value.message


def test_a_target_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(
        ProfileError, match=r"adapter.target_modules: .* has no layer 'query'; it has q_proj, k_proj"
    ):
        plan_of("demo", "adapter.target_modules=['query']")


def test_the_round_70b_takes_560_of_640_gb_and_its_gradients_do_not_fit() -> None:
    plan = plan_of("full-70b")
    step = plan.per_gpu[0].phases["step"]
    of_all = {name: plan.world_size * size / 1e9 for name, size in step.items()}
    assert (plan.model.parameters, plan.world_size, plan.gpu.capacity_bytes) == (70 * 10**9, 8, 80 * 10**9)
    assert of_all == {
        "policy_weights": 140,
        "reference_weights": 140,
        "adapters": 0,
        "gradients": 140,
        "optimizer_states": 280,
        "activations": 0,
    }
    assert (of_all["policy_weights"] + of_all["reference_weights"]) / 640 == 0.4375
    assert not plan.fits
    assert plan.advice[0] == (
        "weights and optimizer take 560 of 640 GB (43.75 % are the two models); "
        "gradients of 140 GB do not fit in the 80 GB left"
    )
    assert "adapter.kind lora" in plan.advice[1]


def test_a_round_70b_fits_where_there_is_room_for_its_gradients() -> None:
    plan = plan_of("full-70b", "hardware.capacity_bytes=192000000000")
    assert plan.fits
    assert "gradients of 140 GB fit in the 976 GB left" in plan.advice[0]


def test_all_weights_of_a_known_model_are_trained_in_its_own_type() -> None:
    plan = plan_of(
        "demo",
        "adapter.kind=none",
        "quantization.kind=none",
        "hardware.gpu=H100",
        "hardware.capacity_bytes=85520809984",
    )
    step, parameters = plan.per_gpu[0].phases["step"], 134_515_008
    assert plan.model.trainable_parameters == parameters
    assert (step["policy_weights"], step["reference_weights"]) == (2 * parameters, 2 * parameters)
    assert (step["gradients"], step["optimizer_states"]) == (2 * parameters, 4 * parameters)
    assert step["adapters"] == 0


def test_training_all_weights_of_a_quantised_base_is_refused_with_both_values() -> None:
    with pytest.raises(ProfileError, match=r"adapter.kind: none .* quantization.kind is nf4"):
        plan_of("demo", "adapter.kind=none")


def zero3_with(tmp_path: Path, **settings: object) -> dict[str, int]:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3, **settings}}))
    return plan_of("zero3", f"engine.deepspeed_file={file}").per_gpu[0].parts["backward"]


def test_zero3_gathers_as_many_stored_elements_as_its_file_allows(tmp_path: Path) -> None:
    few = zero3_with(tmp_path, stage3_max_live_parameters=100_000_000)
    many = zero3_with(tmp_path, stage3_max_live_parameters=1_000_000_000)
    name = "activations.gathered_weights"
    assert many[name] - few[name] == 2 * 900_000_000


def test_zero3s_automatic_threshold_is_ten_times_the_hidden_size(tmp_path: Path) -> None:
    key = "stage3_param_persistence_threshold"
    assert zero3_with(tmp_path, **{key: "auto"}) == zero3_with(tmp_path, **{key: 81_920})
    assert zero3_with(tmp_path, **{key: "auto"}) != zero3_with(tmp_path, **{key: 200_000})


def test_zero3_sets_its_gradient_bucket_aside_at_once(tmp_path: Path) -> None:
    name = "activations.buckets"
    assert zero3_with(tmp_path, reduce_bucket_size=1000)[name] == 2000
    assert zero3_with(tmp_path, reduce_bucket_size="auto")[name] == 2 * 8192 * 8192
    assert zero3_with(tmp_path, contiguous_gradients=False)[name] == 0


def test_offloaded_parameters_leave_the_gpu_for_the_host(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}')
    there, here = plan_of("zero3", f"engine.deepspeed_file={file}"), plan_of("zero3")
    step = there.per_gpu[0].parts["step"]
    assert step["policy_weights.codes"] == step["policy_weights.unquantized"] == 0
    assert step["policy_weights.absmax"] > 1 << 30
    assert there.host_ram_bytes > here.host_ram_bytes + 8 * 4 * (1 << 30)


def test_a_plan_loads_none_of_the_training_stack() -> None:
    script = (
        "import sys\n"
        "from dpo_profiles.load import load_profile\n"
        "from dpo_profiles.plan import make_plan\n"
        "make_plan(load_profile('zero3'))\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'peft'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
