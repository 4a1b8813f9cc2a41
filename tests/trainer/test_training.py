"""A run from its profile to its adapter, and everything it tells on the way."""

from __future__ import annotations

import ast
import errno
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from dpo_profiles.schema import Profile
from dpo_telemetry import events
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_trainer import checkpoint, files, job
from dpo_trainer.data.pairs import make_pairs
from dpo_trainer.errors import TrainerError
from dpo_trainer.model.tokenizer import load_tokenizer

from .conftest import (
    MakeProfile,
    TrainRun,
    after_step,
    chat,
    load_policy,
    poison,
    preference_rows,
    read_events,
    write_rows,
)

STEP_METRICS = {
    "loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/margins",
    "rewards/accuracies", "logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected", "num_tokens",
}  # fmt: skip


def test_a_step_tells_its_numbers_times_and_memory(make_profile: MakeProfile, train: TrainRun) -> None:
    ended = train(make_profile())
    steps = ended.of(events.Step)
    assert [step.step for step in steps] == [1, 2]
    for step in steps:
        assert set(step.metrics) >= STEP_METRICS
        assert set(step.times_s) == {"step", "data", "forward", "backward", "optimizer"}
        assert all(seconds > 0 for seconds in step.times_s.values())
        parts = sum(seconds for name, seconds in step.times_s.items() if name != "step")
        assert parts <= step.times_s["step"]
        assert step.pairs == 2
    assert sum(step.tokens for step in steps) == steps[-1].metrics["num_tokens"]
    assert steps[0].epoch == pytest.approx(2 / 9)


def test_memory_components_are_the_bytes_of_the_real_tensors(
    make_profile: MakeProfile, train: TrainRun
) -> None:
    ended = train(make_profile(adapter={"r": 4}))
    memory = ended.of(events.Memory)
    at_step = next(m for m in memory if m.step == 1 and m.phase == "train")
    # Per layer q, k, v, o, gate, up, down: r x (inputs + outputs).
    sides = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]
    trainable = 2 * sum(4 * (i + o) for i, o in sides)
    assert at_step.components["adapters"] == 2 * 4 * trainable
    assert at_step.components["gradients"] == 4 * trainable
    assert at_step.components["optimizer_states"] == 2 * 4 * trainable + 4 * 2 * 14
    linear = 2 * sum(i * o for i, o in sides)
    plain = 4 * (268 * 64 + 64 * (2 * 2 + 1))
    packed = at_step.components["policy_weights"] - plain
    assert linear * 0.5 < packed < linear * 0.55 + 14 * 2500, "4-bit codes and quantised scales"
    assert at_step.rss_bytes > 0
    before, loaded = [m for m in memory if m.phase == "load"]
    assert before.components == {}
    assert set(loaded.components) == {"policy_weights", "adapters"}, "what is not there yet is absent"


def test_phases_begin_and_end_and_the_run_ends_last(make_profile: MakeProfile, train: TrainRun) -> None:
    ended = train(make_profile())
    phases = [(phase.name, phase.state) for phase in ended.of(events.Phase) if phase.state != "progress"]
    assert phases == [
        ("load", "begin"), ("load", "end"), ("train", "begin"), ("reference", "begin"), ("reference", "end"),
        ("eval", "begin"), ("eval", "end"), ("eval", "begin"), ("eval", "end"),
        ("save", "begin"), ("save", "end"), ("train", "end"), ("save", "begin"), ("save", "end"),
    ]  # fmt: skip
    (start,) = ended.of(events.Start)
    assert (start.rank, start.world_size, start.max_steps, start.device) == (0, 1, 2, "cpu")
    assert {"torch", "trl", "peft", "bitsandbytes"} <= set(start.versions)
    last = [event for event in ended.events if not isinstance(event, events.Heartbeat)][-1]
    assert isinstance(last, events.Exit)
    assert (last.code, last.reason, last.step) == (0, "finished", 2)


def test_the_raw_log_holds_a_line_a_step_and_a_closing_summary(
    make_profile: MakeProfile, train: TrainRun, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = train(make_profile())
    lines = capsys.readouterr().out.splitlines()
    rows = [ast.literal_eval(line) for line in lines if line.startswith("{'")]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses == ended.metric("loss")
    assert next(row["eval_loss"] for row in rows if "eval_loss" in row) == pytest.approx(math.log(2))
    summary = json.loads(lines[-1])["summary"]
    assert summary["data"]["heldout"] == 3
    evaluation = summary["eval"]
    low, high = evaluation["eval_rewards/margins_low"], evaluation["eval_rewards/margins_high"]
    assert low <= evaluation["eval_rewards/margins"] <= high


def test_the_last_evaluation_is_the_mean_over_the_held_out_pairs(
    make_profile: MakeProfile, train: TrainRun
) -> None:
    one = train(make_profile(eval={"micro_batch_pairs": 1})).of(events.Eval)[-1]
    two = train(make_profile(eval={"micro_batch_pairs": 2})).of(events.Eval)[-1]
    assert one.pairs == two.pairs == 3
    for name in ("eval_loss", "eval_rewards/margins", "eval_rewards/margins_low", "eval_rewards/accuracies"):
        assert one.metrics[name] == pytest.approx(two.metrics[name], abs=1e-5)


def test_micro_batches_of_one_pair_make_the_same_steps_as_one_of_three(
    make_profile: MakeProfile, train: TrainRun
) -> None:
    def curve(micro_batch: int, accumulate: int) -> Any:
        return train(
            make_profile(
                adapter={"dropout": 0.0},
                train={
                    "max_steps": 3,
                    "micro_batch_pairs": micro_batch,
                    "gradient_accumulation_steps": accumulate,
                },
            )
        ).metric("loss")

    assert curve(1, 3) == pytest.approx(curve(3, 1), abs=1e-4)


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo", "robust"])
def test_each_loss_starts_where_its_formula_does_and_falls(
    make_profile: MakeProfile, train: TrainRun, kind: str
) -> None:
    smoothing = 0.1 if kind == "robust" else 0.0
    ended = train(
        make_profile(
            loss={"kind": kind, "label_smoothing": smoothing},
            adapter={"dropout": 0.0},
            train={"max_steps": 4},
        )
    )
    at_margin_zero = {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 25.0, "robust": math.log(2)}
    losses = ended.metric("loss")
    assert losses[0] == pytest.approx(at_margin_zero[kind])
    assert losses[-1] < losses[0]


def test_gradient_checkpointing_changes_no_number(make_profile: MakeProfile, train: TrainRun) -> None:
    plain = train(make_profile(train={"gradient_checkpointing": False}))
    recomputed = train(make_profile(train={"gradient_checkpointing": True}))
    for name in ("loss", "grad_norm"):
        assert plain.metric(name) == pytest.approx(recomputed.metric(name), rel=1e-5)


def test_the_final_adapter_gives_the_trainers_log_probs_in_plain_transformers_and_peft(
    make_profile: MakeProfile, train: TrainRun, model_folder: Path
) -> None:
    profile = make_profile(train={"max_steps": 3})
    ended = train(profile)
    told = ended.of(events.Eval)[-1].metrics
    config = json.loads((ended.run.adapter_dir / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(model_folder)
    files = {path.name for path in ended.run.adapter_dir.iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    weights = load_file(ended.run.adapter_dir / "adapter_model.safetensors")
    assert not any("ref" in name or "default" in name for name in weights)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    base = AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=quantization, dtype=torch.float32, device_map={"": "cpu"}
    )
    model = PeftModel.from_pretrained(base, ended.run.adapter_dir).eval()
    tokenizer = load_tokenizer(model_folder, profile)
    heldout = make_pairs(preference_rows(), tokenizer, profile.data, profile.train.seed).heldout
    for side in ("chosen", "rejected"):
        sums = []
        for pair in heldout:
            answer = pair.chosen_ids if side == "chosen" else pair.rejected_ids
            ids = torch.tensor([pair.prompt_ids + answer])
            with torch.no_grad():
                log_probs = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
            picked = log_probs.gather(1, ids[0, 1:, None])[-len(answer) :]
            sums.append(float(picked.sum()))
        assert np.mean(sums) == pytest.approx(float(told[f"eval_logps/{side}"]), abs=1e-3)


def test_evaluating_twice_gives_the_same_log_probs_where_the_cpu_has_avx512_bf16(
    make_profile: MakeProfile, train: TrainRun, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    profile = make_profile()
    base = load_policy(model_folder, profile)
    layers = [module for module in base.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    codes = [layer.weight.data.clone() for layer in layers]
    ids = torch.arange(20)[None]
    with torch.no_grad():
        first, second = base.eval()(input_ids=ids).logits, base.eval()(input_ids=ids).logits
    assert torch.equal(first, second)
    assert all(torch.equal(layer.weight.data, code) for layer, code in zip(layers, codes, strict=True))


def test_a_loss_that_is_no_number_is_told_with_the_pairs_behind_it(
    make_profile: MakeProfile, train: TrainRun, model_folder: Path, tmp_path: Path
) -> None:
    rows = preference_rows()
    rows[4]["rejected"] = chat("What is 4 plus 4?", "~")
    data = write_rows(tmp_path / "poisoned.jsonl", rows)
    profile = make_profile(
        model={"base": str(poison(model_folder, tmp_path / "nan"))},
        data={"name": str(data), "heldout_pairs": 0, "heldout_fraction": 0.0},
        train={"max_steps": 6, "gradient_accumulation_steps": 2},
    )
    ended = train(profile)
    assert ended.code == 0, "the profile says warn"
    losses = [step.metrics["loss"] for step in ended.of(events.Step)]
    first_bad = losses.index("nan") + 1
    sample = ended.of(events.Sample)[0]
    assert (sample.step, sample.sample_ids) == (first_bad, [4])
    assert "nonfinite" in ended.alerts()


def test_a_loss_that_is_no_number_stops_the_run_where_the_profile_says_so(
    train: TrainRun, poisoned_profile: Profile
) -> None:
    ended = train(poisoned_profile)
    assert ended.code == 1
    assert len(ended.of(events.Step)) == 1
    (end,) = ended.of(events.Exit)
    assert (end.code, "nonfinite" in end.reason) == (1, True)
    assert not ended.run.adapter_dir.exists()
    assert "reference_mismatch" not in ended.alerts()


def test_checkpoints_come_when_due_and_only_the_last_are_kept(
    make_profile: MakeProfile, train: TrainRun
) -> None:
    ended = train(make_profile(train={"max_steps": 5}, save={"every_steps": 1, "keep_last": 2}))
    kept = sorted(path.name for path in ended.run.checkpoints_dir.iterdir())
    assert kept == ["step-00004", "step-00005"]
    saved = ended.of(events.Checkpoint)
    assert [(event.step, event.final) for event in saved] == [(s, False) for s in range(1, 6)] + [(5, True)]
    assert saved[-1].path == "adapter"
    assert saved[-1].size_bytes == checkpoint.size_bytes(ended.run.adapter_dir)


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    make_profile: MakeProfile, train: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = make_profile(
        adapter={"dropout": 0.2},
        train={"max_steps": 6},
        schedule={"kind": "cosine", "warmup_ratio": 0.3},
        eval={"every_steps": 2},
    )
    whole = train(profile)
    with monkeypatch.context() as patch:
        after_step(patch, 3, lambda: signal.raise_signal(signal.SIGTERM))
        stopped = train(profile)
    resumed = train(profile, stopped.run)
    (start,) = resumed.of(events.Start)
    assert (start.attempt, start.resumed_from_step) == (2, 3)
    for name in ("loss", "grad_norm", "learning_rate", "num_tokens", "rewards/margins"):
        assert stopped.metric(name) + resumed.metric(name) == whole.metric(name)
    expected = load_file(whole.run.adapter_dir / "adapter_model.safetensors")
    found = load_file(resumed.run.adapter_dir / "adapter_model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert resumed.of(events.Eval)[-1].metrics["eval_loss"] == whole.of(events.Eval)[-1].metrics["eval_loss"]


def test_an_attempt_after_the_last_step_writes_the_same_adapter_and_trains_nothing(
    make_profile: MakeProfile, train: TrainRun
) -> None:
    profile = make_profile()
    ended = train(profile)
    before = load_file(ended.run.adapter_dir / "adapter_model.safetensors")
    again = train(profile, ended.run)
    assert (again.code, again.of(events.Step)) == (0, [])
    after = load_file(again.run.adapter_dir / "adapter_model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_disk_that_refuses_a_checkpoint_leaves_none_behind_and_says_so(
    make_profile: MakeProfile,
    new_run: Callable[[Profile], RunDirectory],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(files, "sync_tree", full)
    run = new_run(make_profile())
    with pytest.raises(OSError, match="No space left"):
        job.run(run.path, 1)
    assert list(run.checkpoints_dir.iterdir()) == []
    end = next(event for event in read_events(run) if isinstance(event, events.Exit))
    assert (end.code, "No space left" in end.reason) == (2, True)


@pytest.mark.parametrize("name", ["adapter_model", "optimizer", "random"])
def test_a_damaged_checkpoint_is_one_line_naming_the_file(
    make_profile: MakeProfile, train: TrainRun, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    profile = make_profile(train={"max_steps": 3})
    with monkeypatch.context() as patch:
        after_step(patch, 1, lambda: signal.raise_signal(signal.SIGTERM))
        stopped = train(profile)
    path = stopped.run.checkpoints_dir / "step-00001" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TrainerError, match=rf"{name}.safetensors: cannot be read"):
        train(profile, stopped.run)
