"""Two ranks of each engine under torchrun: they share the base, train, and tell each thing once."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from dpo_telemetry import components, events
from dpo_telemetry.reader.whole import read_run
from dpo_trainer.data.pairs import make_pairs, schedule
from dpo_trainer.model.nf4 import keep_codes_in_place
from dpo_trainer.model.tokenizer import load_tokenizer

from ..conftest import poison, preference_rows, write_rows
from .conftest import ENGINES, PAIRS_A_STEP, SHARDING, WORLD, Ended, MakeProfile, Workshop, launch

Learned = Callable[[str], Ended]

TOLD_ONCE = (events.Eval, events.Alert, events.Checkpoint, events.Sample, events.Request, events.Answer)


@pytest.mark.parametrize("backend", ENGINES)
def test_two_ranks_train_to_their_end(learned: Learned, backend: str) -> None:
    ended = learned(backend)
    assert ended.codes == [0], ended.log()
    assert [facts["group"] for facts in ended.facts] == [["gloo", WORLD]] * WORLD
    for rank in range(WORLD):
        (exit_,) = ended.of(events.Exit, rank)
        assert (exit_.rank, exit_.code, exit_.reason, exit_.step) == (rank, 0, "finished", 5)
    assert ended.alerts() == []


@pytest.mark.parametrize(
    ("backend", "wrapper"),
    [("ddp", "DistributedDataParallel"), ("deepspeed-zero3", "DeepSpeedEngine"), ("fsdp2", "FSDPPeftModel")],
)
def test_the_engine_named_is_the_engine_that_runs(learned: Learned, backend: str, wrapper: str) -> None:
    assert {facts["wrapper"].removesuffix("ForCausalLM") for facts in learned(backend).facts} == {wrapper}


@pytest.mark.parametrize(
    ("backend", "kept"), [("deepspeed-zero3", "ZeRO NOT_AVAILABLE"), ("fsdp2", "DTensor")]
)
def test_every_parameter_of_the_base_is_in_parts(learned: Learned, backend: str, kept: str) -> None:
    first, second = (facts["base"] for facts in learned(backend).facts)
    assert {part["kept"] for part in [*first.values(), *second.values()]} == {kept}
    for name, part in first.items():
        # A part is a half, rounded up where an engine pads.
        assert part["here"] <= (part["all"] + 1) // 2, name
        assert part["here"] + second[name]["here"] >= part["all"], name


def weight_bytes(ended: Ended, rank: int) -> int:
    return int(ended.of(events.Memory, rank)[-1].components[components.POLICY_WEIGHTS])


@pytest.mark.parametrize("backend", SHARDING)
def test_a_rank_holds_about_half_of_the_bytes(learned: Learned, backend: str) -> None:
    whole = weight_bytes(learned("ddp"), 0)
    assert whole == weight_bytes(learned("ddp"), 1)
    for rank in range(WORLD):
        # Scales of the codes, and tables of the rotary embedding, are on every rank.
        assert 0.5 <= weight_bytes(learned(backend), rank) / whole < 0.6


@pytest.mark.parametrize("backend", ENGINES)
def test_the_second_rank_tells_its_times_and_memory_and_nothing_twice(learned: Learned, backend: str) -> None:
    ended = learned(backend)
    (start,) = ended.of(events.Start, 1)
    assert (start.role, start.rank, start.world_size) == ("rank", 1, WORLD)
    steps = ended.of(events.Step, 1)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5]
    assert all(step.metrics == {} and step.times_s["step"] > 0 for step in steps)
    assert ended.of(events.Memory, 1)
    assert not [event for event in ended.events(1) if isinstance(event, TOLD_ONCE)]
    assert len(ended.of(events.Step)) == 5
    assert [checkpoint.step for checkpoint in ended.of(events.Checkpoint)] == [3, 5, 5]
    assert [evaluation.step for evaluation in ended.of(events.Eval)] == [0, 5]


@pytest.mark.parametrize("backend", ENGINES)
def test_the_adapter_gives_the_told_log_probs_on_the_librarys_own_base(
    learned: Learned, profile_of: MakeProfile, base: Path, backend: str
) -> None:
    ended = learned(backend)
    weights = load_file(ended.adapter())
    assert len(weights) == 2 * 14
    assert all(tensor.numel() and tensor.dtype == torch.float32 for tensor in weights.values())
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    stock = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=quantization, dtype=torch.float32, device_map={"": "cpu"}
    )
    keep_codes_in_place(stock)
    assert any(isinstance(module, Linear4bit) for module in stock.modules())
    model = PeftModel.from_pretrained(stock, ended.run.adapter_dir).eval()
    profile = profile_of(backend)
    pairs = make_pairs(preference_rows(40), load_tokenizer(base, profile), profile.data, profile.train.seed)
    told = ended.of(events.Eval)[-1].metrics
    sums = [answer_log_prob(model, pair.prompt_ids, pair.chosen_ids) for pair in pairs.heldout]
    assert sum(sums) / len(sums) == pytest.approx(float(told["eval_logps/chosen"]), abs=1e-3)


def answer_log_prob(model: PeftModel, prompt_ids: list[int], answer_ids: list[int]) -> float:
    ids = torch.tensor([prompt_ids + answer_ids])
    with torch.no_grad():
        log_probs = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
    return float(log_probs.gather(1, ids[0, 1:, None])[-len(answer_ids) :].sum())


def stopped_at(ended: Ended) -> list[Any]:
    """How both ranks ended: code, reason, step; a checkpoint of that step is there, and no adapter."""
    exits = [ended.of(events.Exit, rank)[0] for rank in range(WORLD)]
    assert not ended.run.adapter_dir.exists()
    newest = max(path.name for path in ended.run.checkpoints_dir.iterdir())
    assert newest == f"step-{exits[0].step:05d}"
    state = json.loads((ended.run.checkpoints_dir / newest / "state.json").read_bytes())
    assert state["step"] == exits[0].step
    return [(exit_.code, exit_.reason, exit_.step) for exit_ in exits]


def test_a_launcher_told_to_stop_lets_both_ranks_save_the_same_step(
    workshop: Workshop, profile_of: MakeProfile, eventually: Callable[..., Any]
) -> None:
    run = workshop.new_run(profile_of("fsdp2", train={"max_steps": 1000}))
    ended = Ended(run, [])
    with launch(workshop, run) as launcher:

        def a_step_is_told() -> bool:
            assert launcher.poll() is None, ended.log()
            return run.attempt(1).event_file("rank-00000").exists() and bool(ended.of(events.Step))

        eventually(a_step_is_told, "a first step", timeout_s=200.0)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=60) != -signal.SIGKILL
    (first, second) = stopped_at(ended)
    assert first == second
    assert first[:2] == (0, "stopped")
    assert 1 <= first[2] < 1000


@pytest.mark.parametrize("backend", ["ddp", "deepspeed-zero3"])
def test_a_stop_that_reaches_one_rank_only_stops_both(
    workshop: Workshop, profile_of: MakeProfile, backend: str
) -> None:
    run = workshop.new_run(profile_of(backend, train={"max_steps": 1000}))
    ended = workshop.go(run, fault="last_rank_is_told_to_stop")
    assert ended.codes == [0, 0], ended.log()
    assert stopped_at(ended) == [(0, "stopped", 2)] * WORLD


def test_a_loss_that_is_no_number_names_the_rank_and_its_pairs(
    workshop: Workshop, profile_of: MakeProfile, base: Path, tmp_path: Path
) -> None:
    rows = preference_rows(40)
    poisoned = 7
    rows[poisoned]["rejected"][-1]["content"] = "~"
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    profile = profile_of(
        "ddp",
        model={"base": str(poison(base, tmp_path / "nan"))},
        data={"name": str(data), "heldout_pairs": 0, "heldout_fraction": 0.0},
        train={"max_steps": 10},
        alerts={"nonfinite": "stop"},
    )
    ended = workshop.go(workshop.new_run(profile))
    assert ended.codes == [1, 1], ended.log()
    (sample,) = ended.of(events.Sample)
    assert sample.sample_ids == [poisoned]
    told = read_run(ended.run).alerts
    assert f"samples of rank {sample.rank}: {poisoned}" in next(
        a.message for a in told if a.code == "nonfinite"
    )
    pairs = make_pairs(rows, load_tokenizer(base, profile), profile.data, profile.train.seed)
    order = [pair.id for pair in schedule(pairs.train, PAIRS_A_STEP * sample.step, profile.train.seed)]
    # Ranks take the pairs of a step in turn.
    assert sample.rank == order.index(poisoned) % WORLD
