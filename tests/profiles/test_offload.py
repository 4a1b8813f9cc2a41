"""What rests in the host's memory, and what stays gathered, by the engines' own files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dpo_profiles.errors import ProfileError
from dpo_profiles.load import load_profile
from dpo_profiles.plan import make_plan
from dpo_profiles.plan.explain import formula_of, planned_workload
from dpo_profiles.plan.fit_engines import FSDP2_KEEP, FSDP2_OFFLOAD, ZERO3, ZERO3_OFFLOAD
from dpo_profiles.plan.host import offloaded_bytes
from dpo_profiles.plan.phases import estimate
from dpo_profiles.plan.tensors import quantization_state_bytes
from dpo_profiles.schema import Profile

from .test_explain import value_of

CPU = {"device": "cpu"}
GATHERS = Path(__file__).with_name("fsdp2_gathers.py")


def zero3(folder: Path, **settings: object) -> Profile:
    """The zero3 profile, whose own file has these settings besides."""
    own = json.loads(Path(load_profile("zero3").engine.deepspeed_file).read_bytes())
    own["zero_optimization"] |= settings
    file = folder / "mine.json"
    file.write_text(json.dumps(own))
    return load_profile("zero3", [f"engine.deepspeed_file={file}"])


def fsdp(folder: Path, name: str, **settings: object) -> Profile:
    """The profile `name`, whose own file has these settings besides."""
    own = msgspec.yaml.decode(Path(load_profile(name).engine.accelerate_file).read_bytes())
    own["fsdp_config"] |= settings
    file = folder / "mine.yaml"
    file.write_bytes(msgspec.yaml.encode(own))
    return load_profile(name, [f"engine.accelerate_file={file}"])


def profile_of(folder: Path, case: str) -> Profile:
    match case:
        case "zero3 parameters":
            return zero3(folder, offload_param=CPU)
        case "zero3 optimizer":
            return zero3(folder, offload_optimizer=CPU)
        case "zero3 shipped":
            return load_profile("zero3", [f"engine.deepspeed_file={ZERO3_OFFLOAD}"])
        case "fsdp1 kept":
            return fsdp(folder, "fsdp", fsdp_sharding_strategy="SHARD_GRAD_OP")
    file = FSDP2_OFFLOAD if "offload" in case else FSDP2_KEEP
    plain = ["quantization.kind=none"] if case.endswith("plain") else []
    return load_profile("fsdp2", [f"engine.accelerate_file={file}", *plain])


OFFLOADED = ("zero3 parameters", "zero3 optimizer", "zero3 shipped", "fsdp2 offload", "fsdp2 offload plain")
KEPT = ("fsdp2 kept", "fsdp2 kept plain", "fsdp1 kept")


def step(profile: Profile) -> dict[str, int]:
    return make_plan(profile).per_gpu[0].phases["step"]


def gathered(profile: Profile) -> dict[str, int]:
    """Phase to weights that are gathered in it."""
    found = make_plan(profile).per_gpu[0].parts
    return {phase: own.get("activations.gathered_weights", 0) for phase, own in found.items()}


@pytest.mark.parametrize("case", [*OFFLOADED, *KEPT])
def test_each_part_has_a_formula_that_gives_its_bytes(tmp_path: Path, case: str) -> None:
    profile = profile_of(tmp_path, case)
    workload = planned_workload(profile)
    for phase, own in make_plan(profile).per_gpu[0].parts.items():
        for name, size in own.items():
            formula = formula_of(workload, phase, name)
            assert formula.source
            if size:
                assert value_of(formula.text) == pytest.approx(size, rel=2e-3), (phase, name, formula.text)


@pytest.mark.parametrize("case", OFFLOADED)
def test_device_and_host_together_hold_what_the_device_held_alone(tmp_path: Path, case: str) -> None:
    workload = planned_workload(profile_of(tmp_path, case))
    on_host = offloaded_bytes(workload)
    here = estimate(workload).phases["step"]
    alone = estimate(msgspec.structs.replace(workload, offload="none")).phases["step"]
    for component in ("policy_weights", "adapters", "gradients", "optimizer_states"):
        assert here[component] + on_host[component] == alone[component]
    assert sum(on_host.values()) > 0


@pytest.mark.parametrize("case", OFFLOADED)
def test_the_host_has_room_for_what_all_of_its_ranks_keep_there(tmp_path: Path, case: str) -> None:
    profile = profile_of(tmp_path, case)
    there = make_plan(load_profile("fsdp2" if "fsdp2" in case else "zero3")).host_ram_bytes
    more = make_plan(profile).host_ram_bytes - there
    workload = planned_workload(profile)
    on_host = sum(offloaded_bytes(workload).values())
    # Page-locked memory comes in powers of two, so a shard takes up to twice its bytes.
    assert 8 * on_host <= more < 16 * on_host
    assert (more > 8 * on_host) == workload.offloads_parameters


def test_zero3_offloads_parameters_and_optimizer_each_by_its_own_setting(tmp_path: Path) -> None:
    usual = step(load_profile("zero3"))
    parameters, optimizer = (
        step(zero3(tmp_path, offload_param=CPU)),
        step(zero3(tmp_path, offload_optimizer=CPU)),
    )
    for moved, stays in ((parameters, optimizer), (optimizer, parameters)):
        changed = {name for name, size in moved.items() if size != usual[name]}
        assert not changed & {name for name, size in stays.items() if size != usual[name]}
    assert optimizer["gradients"] == optimizer["optimizer_states"] == 0
    assert parameters["policy_weights"] < usual["policy_weights"] / 4


def test_zero3_keeps_small_parameters_on_the_gpu_whole_and_frozen_ones_shard_included(tmp_path: Path) -> None:
    limit = {"stage3_param_persistence_threshold": 10_000}
    rank = make_plan(zero3(tmp_path, offload_param=CPU, **limit)).per_gpu[0].parts["step"]
    # Qwen2.5-72B: 161 norms of 8,192, and biases of 8,192, 1,024 and 1,024 in each of 80 layers.
    small = 161 * 8192 + 80 * (8192 + 1024 + 1024)
    assert rank["policy_weights.codes"] == rank["policy_weights.unquantized"] == 0
    assert rank["policy_weights.persistent"] == 2 * (small + small // 8)
    assert rank["adapters.weights"] == 0
    wide = make_plan(zero3(tmp_path, offload_param=CPU)).per_gpu[0].parts["step"]
    trainable = 210_534_400
    assert wide["adapters.weights"] == 2 * (2 * trainable + trainable // 8)


@pytest.mark.parametrize("case", OFFLOADED)
def test_the_scales_of_quantised_weights_stay_on_the_gpu(tmp_path: Path, case: str) -> None:
    profile = profile_of(tmp_path, case)
    kept = make_plan(profile).per_gpu[0].parts["step"]["policy_weights.absmax"]
    assert kept == quantization_state_bytes(planned_workload(profile))
    assert (kept > 1 << 30) == (profile.quantization.kind == "nf4")


def test_fsdp2_leaves_nothing_on_the_gpu_between_passes_but_scales_and_workspace(tmp_path: Path) -> None:
    rank = make_plan(profile_of(tmp_path, "fsdp2 offload")).per_gpu[0]
    held = {name for name, size in rank.parts["step"].items() if size}
    assert held == {"policy_weights.absmax", "activations.workspace"}
    assert gathered(profile_of(tmp_path, "fsdp2 offload")) == gathered(load_profile("fsdp2"))


def test_a_part_of_the_optimizer_is_planned_as_if_all_of_it_were_on_the_gpu(tmp_path: Path) -> None:
    half = zero3(tmp_path, offload_optimizer={**CPU, "ratio": 0.5})
    assert step(half) == step(load_profile("zero3"))


def test_a_device_of_none_offloads_nothing(tmp_path: Path) -> None:
    none = {"device": "none"}
    profile = zero3(tmp_path, offload_param=none, offload_optimizer=none)
    assert make_plan(profile).per_gpu == make_plan(load_profile("zero3")).per_gpu


@pytest.mark.parametrize("case", KEPT)
def test_layers_that_are_kept_are_gathered_from_the_first_pass_to_the_update(
    tmp_path: Path, case: str
) -> None:
    profile = profile_of(tmp_path, case)
    found = gathered(profile)
    workload = planned_workload(profile)
    model, trainable = workload.model, 210_534_400
    stored = model.linear_weights // 2 if workload.quantized else 2 * model.linear_weights
    whole = stored + 2 * model.embedding_parameters + 2 * trainable * workload.adapter_bytes
    assert {found[phase] for phase in ("reference", "forward", "backward", "eval")} == {whole}
    assert found["save"] == whole + 4 * trainable
    assert found["step"] == found["load"] == 0


def test_resharding_is_off_only_where_the_file_says_so(tmp_path: Path) -> None:
    usual = make_plan(load_profile("fsdp2")).per_gpu
    for said in (True, "true"):
        assert make_plan(fsdp(tmp_path, "fsdp2", fsdp_reshard_after_forward=said)).per_gpu == usual
    assert make_plan(load_profile("fsdp2", ["engine.accelerate_file="])).per_gpu == usual
    kept = make_plan(load_profile("fsdp2", [f"engine.accelerate_file={FSDP2_KEEP}"])).per_gpu
    for off in (False, "false"):
        assert make_plan(fsdp(tmp_path, "fsdp2", fsdp_reshard_after_forward=off)).per_gpu == kept
    # FSDP1 goes by its strategy.
    whole = make_plan(load_profile("fsdp")).per_gpu
    assert make_plan(fsdp(tmp_path, "fsdp", fsdp_reshard_after_forward=False)).per_gpu == whole
    by_number = make_plan(fsdp(tmp_path, "fsdp", fsdp_sharding_strategy=2)).per_gpu
    assert by_number == make_plan(profile_of(tmp_path, "fsdp1 kept")).per_gpu != whole


def test_an_offloaded_optimizer_that_needs_a_gpu_is_refused_with_both_values() -> None:
    files = {
        "zero3": f"engine.deepspeed_file={ZERO3_OFFLOAD}",
        "fsdp2": f"engine.accelerate_file={FSDP2_OFFLOAD}",
    }
    said = {"zero3": "offload_optimizer.device", "fsdp2": "fsdp_offload_params"}
    for name, file in files.items():
        with pytest.raises(ProfileError, match=rf"{said[name]} .* but optimizer.name is \S*adamw_8bit"):
            load_profile(name, [file, "optimizer.name=adamw_8bit"])


def test_a_strategy_of_fsdp1_is_refused_where_fsdp2_takes_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(
        ProfileError, match="fsdp_reshard_after_forward 'FULL_SHARD', which FSDP2 does not take"
    ):
        fsdp(tmp_path, "fsdp2", fsdp_reshard_after_forward="FULL_SHARD")


@pytest.mark.train
@pytest.mark.parametrize(
    ("file", "reshards", "offloads"), [(FSDP2_KEEP, False, False), (FSDP2_OFFLOAD, True, True)]
)
def test_accelerate_reads_in_a_shipped_file_what_the_plan_reads(
    monkeypatch: pytest.MonkeyPatch, file: str, reshards: bool, offloads: bool
) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_multi_gpu_env
    from torch.distributed.fsdp import CPUOffloadPolicy

    told = [
        "--config_file",
        file,
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "-m",
        "dpo_trainer",
        "RUN",
        "1",
    ]
    arguments, _defaults, _precision = launch._validate_launch_command(
        launch.launch_command_parser().parse_args(told)
    )
    variables: dict[str, str] = prepare_multi_gpu_env(arguments)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    plugin: Any = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, reshards)
    assert isinstance(plugin.cpu_offload, CPUOffloadPolicy) == offloads
    assert plugin.mixed_precision_policy is None


@pytest.mark.train
@pytest.mark.parametrize("file", [ZERO3, ZERO3_OFFLOAD])
def test_deepspeed_reads_in_a_shipped_file_what_the_plan_reads(file: str) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    profile = load_profile("zero3", [f"engine.deepspeed_file={file}"])
    read = DeepSpeedZeroConfig(**json.loads(Path(file).read_bytes())["zero_optimization"])
    workload = planned_workload(profile)
    assert workload.zero3 is not None
    assert (read.stage, read.max_live_parameters) == (3, workload.zero3.max_live)
    assert read.param_persistence_threshold == workload.sharding.persistence_elements
    assert (read.offload_param is not None) == workload.offloads_parameters == (file == ZERO3_OFFLOAD)
    assert (read.offload_optimizer is not None) == workload.offloads_optimizer == (file == ZERO3_OFFLOAD)


@pytest.mark.train
@pytest.mark.parametrize(
    ("reshards", "gathers", "whole"), [(True, [4, 4, 4], [0, 0, 0, 0]), (False, [4, 0, 0], [4, 4, 0, 4])]
)
def test_torch_gathers_each_layer_three_times_or_once_and_keeps_it(
    reshards: bool, gathers: list[int], whole: list[int]
) -> None:
    """Reference's pass, policy's pass, backward pass and evaluation of 4 layers on 2 CPU ranks."""
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
         "--rdzv-endpoint", "localhost:0", str(GATHERS), str(int(reshards))],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("{")]
    found = json.loads(line)
    assert found["whole"] == whole
    # After the backward pass torch prefetches one layer more, since two forward passes came before it.
    assert [min(real, planned) for real, planned in zip(found["gathers"], gathers, strict=True)] == gathers
    assert sum(found["gathers"]) <= sum(gathers) + 1
