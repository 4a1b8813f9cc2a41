"""The shipped engine files through accelerate's own launcher and plugin."""

from __future__ import annotations

from typing import Any

import pytest

from dpo_profiles.load import load_profile

pytestmark = pytest.mark.train


def environment(name: str) -> dict[str, str]:
    """What accelerate's launcher hands its ranks for a shipped profile's file."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_multi_gpu_env

    engine = load_profile(name).engine
    told = ["--config_file", engine.accelerate_file, "-m", "dpo_trainer", "RUN", "1"]
    arguments, _defaults, _precision = launch._validate_launch_command(
        launch.launch_command_parser().parse_args(told)
    )
    assert int(arguments.num_processes) == engine.world_size
    assert arguments.use_fsdp
    variables: dict[str, str] = prepare_multi_gpu_env(arguments)
    return variables


@pytest.mark.parametrize(
    ("name", "version", "precision"), [("fsdp", "1", "no"), ("fsdp2", "2", "no"), ("fsdp-seed", "1", "fp16")]
)
def test_accelerate_launches_what_the_profile_says(name: str, version: str, precision: str) -> None:
    variables = environment(name)
    assert variables["FSDP_VERSION"] == version
    assert variables["ACCELERATE_MIXED_PRECISION"] == precision


def test_fsdp2_shards_again_after_the_forward_pass_and_casts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import FullyShardedDataParallelPlugin

    for name, value in environment("fsdp2").items():
        monkeypatch.setenv(name, value)
    plugin: Any = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.mixed_precision_policy is None
    assert plugin.cpu_ram_efficient_loading is False
    assert plugin.transformer_cls_names_to_wrap == ["Qwen2DecoderLayer"]
