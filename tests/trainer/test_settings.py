"""What the libraries are told of a profile, and what a run says in the end."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from dpo_trainer import engine
from dpo_trainer.dpo import settings
from dpo_trainer.emit import lines

from .conftest import MakeProfile


def test_one_process_uses_one_gpu_however_many_are_visible(
    make_profile: MakeProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(arguments: TrainingArguments) -> torch.device:
        if not hasattr(arguments, "_n_gpu"):
            arguments._n_gpu = 4
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(found))
    profile = make_profile(train={"micro_batch_pairs": 3}, eval={"micro_batch_pairs": 2})
    arguments = settings.training_arguments(profile, engine.choose(profile), tmp_path)
    assert (arguments.train_batch_size, arguments.eval_batch_size, arguments.n_gpu) == (3, 2, 1)


def test_a_summary_is_json_whatever_the_numbers_are(capsys: pytest.CaptureFixture[str]) -> None:
    lines.write_summary({"steps": 2, "train": {"loss": math.nan, "grad_norm": -math.inf, "rate": 0.5}})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    summary = json.loads(capsys.readouterr().out, parse_constant=refuse)["summary"]
    assert summary == {"steps": 2, "train": {"loss": "nan", "grad_norm": "-inf", "rate": 0.5}}
