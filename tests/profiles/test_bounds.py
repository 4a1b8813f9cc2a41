"""From what a rank holds to its peak and to what NVML shows: how each term follows from the workload."""

from __future__ import annotations

import msgspec
import pytest

from dpo_profiles.plan import calibration
from dpo_profiles.plan.find import find_architecture
from dpo_profiles.plan.phases import Estimate, estimate
from dpo_profiles.plan.sharding import Sharding
from dpo_profiles.plan.transient import dequantized
from dpo_profiles.plan.workload import Workload

GIB = 1 << 30
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def workload(**changes: object) -> Workload:
    """Mistral-7B on one A100, one packed sequence of 4,096 tokens a sample."""
    plain = Workload(
        name="test",
        model=find_architecture("Mistral-7B-v0.1", "test"),
        quantized=True,
        targets=ATTENTION,
        r=16,
        sequences=1,
        length_tokens=4096,
        micro_batch=4,
        kernels="fused_head",
        sharding=Sharding(backend="single", world_size=1),
        accumulates=False,
        gpu="A100",
    )
    return msgspec.structs.replace(plain, **changes)


def fsdp1(ranks: int, **changes: object) -> Workload:
    return workload(
        sharding=Sharding(backend="fsdp", world_size=ranks), storage_bytes=2, gradients_stay=True, **changes
    )


def parts(found: Estimate, phase: str) -> dict[str, int]:
    prefix = "activations."
    return {n.removeprefix(prefix): s for n, s in found.parts[phase].items() if n.startswith(prefix)}


def test_one_gpu_holds_codes_scales_embeddings_the_adapter_and_cublas() -> None:
    # 3.250 + 0.103 + 0.488 + 12 bytes for 13.6 million + 2 x 8.125 MiB; measured 4.011.
    assert estimate(workload()).resident / GIB == pytest.approx(4.011, abs=2e-3)


def test_scales_are_not_sharded_and_adapters_may_stay_whole() -> None:
    found = estimate(fsdp1(4, replicated_adapters=True, adapter_bytes=2, moment_bytes=2))
    assert found.parts["step"]["policy_weights.absmax"] / GIB == pytest.approx(0.103, rel=1e-2)
    assert found.resident / GIB == pytest.approx(1.156, abs=2e-3)


def test_the_peak_grows_by_the_same_for_each_sample() -> None:
    peaks = [estimate(workload(micro_batch=batch)).peak_allocated for batch in (4, 8, 12)]
    assert peaks[2] - peaks[1] == pytest.approx(peaks[1] - peaks[0], rel=1e-6)


def test_the_slope_does_not_depend_on_the_number_of_ranks_and_fsdp1_retains_a_row_a_layer() -> None:
    def slope(job: Workload) -> int:
        return (
            estimate(msgspec.structs.replace(job, micro_batch=5)).peak_allocated
            - estimate(job).peak_allocated
        )

    row = 4096 * 4096 * 2
    assert slope(fsdp1(2)) == slope(fsdp1(4))
    assert slope(fsdp1(2)) - slope(workload()) == pytest.approx(30 * row, rel=1e-6)


def test_fsdp1_gathers_its_root_and_one_layer_and_the_layer_drops_out_at_the_loss() -> None:
    model = find_architecture("Meta-Llama-3-8B", "test")
    found = estimate(fsdp1(2, model=model, quantized=False))
    assert parts(found, "backward")["gathered_weights"] / GIB == pytest.approx(2.36, abs=0.01)
    assert parts(found, "forward")["gathered_weights"] / GIB == pytest.approx(1.96, abs=0.01)


def test_logits_are_the_peak_at_a_large_vocabulary_unless_the_head_is_fused() -> None:
    model = find_architecture("Meta-Llama-3-8B", "test")
    plain = estimate(workload(model=model, kernels="fused_later"))
    fused = estimate(workload(model=model))
    assert plain.peak_allocated == sum(plain.phases["forward"].values())
    assert fused.peak_allocated == sum(fused.phases["backward"].values())
    assert parts(plain, "forward")["logits"] == 8 * 4 * 4096 * 128_256


def test_a_short_sequence_has_its_peak_where_a_weight_is_dequantised() -> None:
    job = workload(length_tokens=64, micro_batch=1)
    assert parts(estimate(job), "backward")["layer"] > dequantized(job) == 2 * 4096 * 14_336


def test_without_checkpointing_each_layer_keeps_what_its_backward_pass_needs() -> None:
    kept = parts(estimate(workload(checkpointing=False)), "backward")["checkpoints"]
    assert kept > 10 * parts(estimate(workload()), "backward")["checkpoints"]


def test_eager_attention_keeps_scores_that_grow_with_the_square_of_the_length() -> None:
    def scores(length: int) -> int:
        job = workload(length_tokens=length, micro_batch=1)
        eager = estimate(msgspec.structs.replace(job, eager_attention=True))
        return parts(eager, "backward")["layer"] - parts(estimate(job), "backward")["layer"]

    assert scores(2048) == 4 * scores(1024) > 0


def test_offloading_leaves_the_scales_and_takes_adapter_and_optimizer_along() -> None:
    step = estimate(fsdp1(2, offload="cpu-params")).parts["step"]
    held = {name for name, size in step.items() if size and not name.startswith("activations.")}
    assert held == {"policy_weights.absmax"}


def test_dropout_and_a_float32_adapter_keep_more_of_their_inputs() -> None:
    plain = parts(estimate(workload()), "backward")["layer"]
    wide = parts(estimate(workload(adapter_input_bytes=4)), "backward")["layer"]
    dropped = parts(estimate(workload(dropout=True)), "backward")["layer"]
    inputs = 4 * 4096 * 4 * 4096
    assert (wide - plain, dropped - plain) == (2 * inputs, 3 * inputs)


def test_nvml_is_the_peak_with_its_error_cache_context_and_communication() -> None:
    found = estimate(workload())
    error = calibration.ALLOCATED_ERROR
    low = round(found.peak_allocated * (1 - error)) + found.gap.cache.low + found.gap.context.low
    high = round(found.peak_allocated * (1 + error)) + found.gap.cache.high + found.gap.context.high
    assert (found.nvml.low, found.nvml.high) == (low, high)


def test_more_gpus_add_communication_and_whole_logits_a_second_copy_in_the_cache() -> None:
    assert estimate(fsdp1(2)).gap.context.low > estimate(workload()).gap.context.high
    whole = estimate(workload(kernels="fused_later"))
    assert whole.gap.cache.high > 8 * 4 * 4096 * 32_000 > estimate(workload()).gap.cache.high


@pytest.mark.parametrize(
    ("changes", "calibrated"),
    [
        ({}, True),
        ({"sequences": 2}, False),
        ({"gpu": "H100"}, False),
        ({"offload": "cpu-params"}, False),
        ({"checkpointing": False}, False),
        ({"sharding": Sharding(backend="deepspeed-zero3", world_size=2)}, False),
        ({"sharding": Sharding(backend="fsdp2", world_size=2)}, False),
    ],
)
def test_only_what_measurements_are_of_counts_as_calibrated(
    changes: dict[str, object], calibrated: bool
) -> None:
    assert workload(**changes).calibrated is calibrated


def test_an_uncalibrated_interval_leaves_a_fifth_of_the_peak() -> None:
    measured, other = estimate(workload()), estimate(workload(checkpoint_bytes=2, offload="cpu-params"))
    assert other.nvml.high - other.gap.cache.high - other.gap.context.high == round(
        1.2 * other.peak_allocated
    )
    assert measured.nvml.high < 1.1 * measured.peak_allocated + 3 * GIB


def test_experts_all_keep_their_rows_and_one_has_gradients() -> None:
    mixture = workload(model=find_architecture("Mixtral-8x7B-v0.1", "test"))
    dense = workload()
    more = parts(estimate(mixture), "backward")["layer"] - parts(estimate(dense), "backward")["layer"]
    tokens, row = 4 * 4096, 2 * 14_336
    # Twice the kept rows, an eighth of twice the gradients, and two experts' outputs.
    assert more == tokens * (3 * row + 3 * row // 4 - 3 * row + 2 * 2 * 4096)


def test_attention_keeps_keys_and_values_as_wide_as_the_config_says() -> None:
    wide = msgspec.structs.replace(workload().model, key_value_size=4096)
    more = parts(estimate(workload(model=wide)), "backward")["layer"]
    assert more - parts(estimate(workload()), "backward")["layer"] == 2 * 2 * (4096 - 1024) * 4 * 4096


def test_training_all_weights_holds_a_second_model_for_the_reference() -> None:
    alone = estimate(workload(full=True, targets=(), quantized=False)).resident
    paired = estimate(workload(full=True, targets=(), quantized=False, adapter_copies=2)).resident
    assert paired - alone == 2 * workload().model.parameters
