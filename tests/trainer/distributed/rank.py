"""One rank as a test wants it: the real command, with a fault put in and what it holds written down.

torchrun starts it as a module, with the settings in the environment; the nursery calls `run`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from dpo_telemetry import cli
from dpo_trainer import __main__ as command
from dpo_trainer import libraries

libraries.prepare_environment()

import torch.distributed as dist
from tests.trainer.distributed import faults
from torch import nn
from torch.distributed.tensor import DTensor

from dpo_trainer import job
from dpo_trainer.model.fill import fill
from dpo_trainer.selftest.run import SelfTest

SETTINGS = "RANK_SETTINGS"
"""Environment variable: JSON of `run`'s arguments."""


def run(run: str, attempt: int, fault: str, facts: str) -> int:
    """The exit code of a rank's whole job.

    Args:
        run: the run directory.
        attempt: its number.
        fault: one of `faults.FAULTS`, or nothing.
        facts: folder that gets a file from each rank.
    """
    assert job is not None
    write_facts_first(Path(facts))
    write_load_peak(Path(facts))
    if fault:
        faults.FAULTS[fault]()
    return cli.exit_code_of(command.main, "dpo_trainer", [run, str(attempt)])


def write_facts_first(folder: Path) -> None:
    """Write what the rank holds when the engine has taken over."""
    original = SelfTest.run

    def patched(self: SelfTest, trainer: Any, *rest: Any, **named: Any) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{rank}.json").write_text(json.dumps(facts_of(trainer)))
        original(self, trainer, *rest, **named)

    SelfTest.run = patched  # type: ignore[method-assign]


def write_load_peak(folder: Path) -> None:
    """Write what loading the base takes at its peak, beyond what the rank holds before and gives back in it."""
    original = fill

    def patched(*arguments: Any) -> Any:
        before = resident_bytes("VmRSS")
        # Linux then begins the peak anew.
        Path("/proc/self/clear_refs").write_text("5")
        loaded = original(*arguments)
        rank = dist.get_rank() if dist.is_initialized() else 0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"load-{rank}.txt").write_text(str(resident_bytes("VmHWM") - before))
        return loaded

    vars(job)["fill"] = patched


def resident_bytes(field: str) -> int:
    """VmRSS is the resident set, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def facts_of(trainer: Any) -> dict[str, Any]:
    """The process group, the engine's wrapper, and what this rank holds of each parameter of the base."""
    inside = dist.is_initialized()
    return {
        "group": [dist.get_backend(), dist.get_world_size()] if inside else [],
        "wrapper": type(trainer.model_wrapped).__name__,
        "base": {n: part(p) for n, p in trainer.policy.named_parameters() if ".lora_" not in n},
    }


def part(parameter: nn.Parameter) -> dict[str, Any]:
    """How a parameter is kept, with the elements here and in all."""
    if isinstance(parameter, DTensor):
        return {"kept": "DTensor", "here": parameter.to_local().numel(), "all": parameter.numel()}
    if (status := getattr(parameter, "ds_status", None)) is not None:
        here = parameter.data.numel() + parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        return {"kept": f"ZeRO {status.name}", "here": here, "all": parameter.ds_numel}  # type: ignore[attr-defined]
    return {"kept": "whole", "here": parameter.numel(), "all": parameter.numel()}


if __name__ == "__main__":
    sys.exit(run(**json.loads(os.environ[SETTINGS])))
