"""What stands in for a large model, its data and its adapter has their shape, and a job can train on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PretrainedConfig

from dpo_profiles.render import to_toml
from dpo_profiles.schema import Adapter, Data, Engine, Eval, Model, Profile, Train
from dpo_telemetry import cli
from dpo_trainer.data.conversation import read_row
from dpo_trainer.data.pairs import RunPairs, make_pairs
from dpo_trainer.data.source import load_rows
from dpo_trainer.data.tokenise import PairTokenizer
from dpo_trainer.errors import TrainerError
from dpo_trainer.model import reach
from dpo_trainer.model.adapter_check import check_adapter
from dpo_trainer.model.adapter_files import find_adapter
from dpo_trainer.rehearsal.__main__ import main
from dpo_trainer.rehearsal.model import NF4_BLOCK, shrink
from dpo_trainer.rehearsal.prepare import Prepared, prepare
from dpo_trainer.rehearsal.shorten import Shortener
from dpo_trainer.rehearsal.stand_in import stand_in_tokenizer

from .conftest import MakeProfile, chat, write_rows

FAR = Profile(
    name="far",
    model=Model(base="Qwen/Qwen2.5-72B-Instruct", pad_token="<|image_pad|>"),
    adapter=Adapter(path="./SFT_LoRA", r=8, alpha=4.0, target_modules=("q_proj", "down_proj")),
    data=Data(name="mlabonne/orpo-dpo-mix-40k"),
    train=Train(seed=3),
    engine=Engine(backend="ddp", gpus_per_node=2),
)
"""A profile of which nothing is here and of which nobody can be asked."""


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield
    reach.set_offline(False)


def rehearse(profile: Profile, into: Path, ranks: int = 2, layers: int | None = None) -> Prepared:
    return prepare(profile, into, ranks, layers, lambda done, total, message: None)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reach, "hub_answers", lambda: False)
        return rehearse(FAR, tmp_path_factory.mktemp("far"))


def written(prepared: Prepared) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(prepared.data).read_text().splitlines()]


def pairs_of(prepared: Prepared, profile: Profile) -> RunPairs:
    """The pairs as the job will make them."""
    data = msgspec.structs.replace(profile.data, name=prepared.data)
    tokenizer = AutoTokenizer.from_pretrained(prepared.model)
    return make_pairs(load_rows(data), tokenizer, data, profile.train.seed)


def test_the_stand_in_is_a_small_qwen2_with_the_large_ones_proportions(far: Prepared) -> None:
    config = AutoConfig.from_pretrained(far.model)
    assert config.architectures == ["Qwen2ForCausalLM"]
    assert config.num_hidden_layers == 4
    assert config.num_attention_heads == 8 * config.num_key_value_heads
    assert not config.tie_word_embeddings
    weights = load_file(Path(far.model) / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in weights.values()) < 5e6
    assert weights["lm_head.weight"].numel() > 1_048_576


def test_the_stand_ins_tokenizer_talks_as_qwen_does(far: Prepared) -> None:
    tokenizer = AutoTokenizer.from_pretrained(far.model)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|image_pad|>", "<|im_end|>")
    assert len(tokenizer("<|im_start|><|im_end|><|endoftext|><|image_pad|>é")["input_ids"]) == 4 + 2
    asked = tokenizer.apply_chat_template(chat("Hi"), tokenize=False, add_generation_prompt=True)
    assert asked == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    told = tokenizer.apply_chat_template(chat("Hi", "Ho", system="Sing."), tokenize=False)
    assert told == (
        "<|im_start|>system\nSing.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    )


def test_all_pairs_of_the_stand_in_are_trained_on_or_held_out(far: Prepared) -> None:
    pairs = pairs_of(far, FAR)
    report = pairs.report
    assert (report.unusable, report.dropped_over_long, report.truncated) == (0, 0, 0)
    assert len(pairs.train) >= 64
    assert len(pairs.heldout) >= 2


def test_the_stand_ins_answers_are_not_equally_likely(far: Prepared) -> None:
    model = AutoModelForCausalLM.from_pretrained(far.model, dtype=torch.float32)
    means = []
    for pair in pairs_of(far, FAR).train[:4]:
        ids = torch.tensor([pair.prompt_ids + pair.chosen_ids])
        with torch.no_grad():
            logps = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        means.append(logps.mean().item())
        assert logps.std() > 0.5
    assert len(set(means)) == 4


def test_the_adapter_is_what_the_profile_says_and_changes_the_model(far: Prepared) -> None:
    adapter = msgspec.structs.replace(FAR.adapter, path=far.adapter)
    check_adapter(find_adapter(adapter), adapter, AutoConfig.from_pretrained(far.model), far.model)
    recorded = json.loads((Path(far.adapter) / "adapter_config.json").read_text())
    assert recorded["base_model_name_or_path"] == far.model
    base = AutoModelForCausalLM.from_pretrained(far.model, dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = base(ids).logits.log_softmax(-1)
        after = PeftModel.from_pretrained(base, far.adapter)(ids).logits.log_softmax(-1)
    assert 1e-3 < (after - before).abs().mean() < 1


def test_the_notes_say_what_stands_in_for_what(far: Prepared) -> None:
    notes = "\n".join(far.notes)
    for told in (
        "the hub does not answer: a random Qwen2-shaped model and a byte-level tokenizer stand in for Qwen/Qwen2.5",
        "4 random layers of width 128 in place of 80 of width 8192",
        "mlabonne/orpo-dpo-mix-40k: the hub does not answer and there is no copy in its cache: the shipped pairs",
        "pairs are cut to",
        "stands in for ./SFT_LoRA",
    ):
        assert told in notes


def test_the_seed_decides_all_weights(far: Prepared, tmp_path: Path) -> None:
    again = rehearse(FAR, tmp_path / "again")
    other = rehearse(msgspec.structs.replace(FAR, train=Train(seed=4)), tmp_path / "other")
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        first = (Path(far.model).parent / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == first
        assert (tmp_path / "other" / name).read_bytes() != first
    assert Path(again.data).read_bytes() == Path(far.data).read_bytes() == Path(other.data).read_bytes()


def test_eight_ranks_have_a_layer_and_held_out_pairs_for_one_pass_each(tmp_path: Path) -> None:
    profile = msgspec.structs.replace(FAR, adapter=Adapter(), eval=Eval(micro_batch_pairs=2))
    prepared = rehearse(profile, tmp_path / "eight", ranks=8)
    assert prepared.adapter == ""
    assert not (tmp_path / "eight" / "adapter").exists()
    assert AutoConfig.from_pretrained(prepared.model).num_hidden_layers == 8
    pairs = pairs_of(prepared, profile)
    assert len(pairs.heldout) == 16
    assert pairs.report.dropped_shared_prompt == 0


def test_held_out_pairs_leave_enough_to_train_on(tmp_path: Path) -> None:
    data = msgspec.structs.replace(FAR.data, heldout_pairs=300)
    profile = msgspec.structs.replace(FAR, data=data, adapter=Adapter())
    pairs = pairs_of(rehearse(profile, tmp_path / "many"), profile)
    assert (len(pairs.heldout), len(pairs.train)) == (300, 64)


def test_a_local_model_and_file_are_kept_in_shape(make_profile: MakeProfile, tmp_path: Path) -> None:
    profile = make_profile()
    prepared = rehearse(profile, tmp_path / "near")
    config, original = (AutoConfig.from_pretrained(name) for name in (prepared.model, profile.model.base))
    for name in ("architectures", "tie_word_embeddings", "vocab_size", "rope_parameters", "eos_token_id"):
        assert getattr(config, name) == getattr(original, name)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.num_hidden_layers == original.num_hidden_layers
    tokenizers = [AutoTokenizer.from_pretrained(name) for name in (prepared.model, profile.model.base)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    taken = [read_row(row) for row in load_rows(Data(name=prepared.data))]
    assert taken == [read_row(row) for row in load_rows(profile.data)]


def test_unusable_and_over_long_rows_are_passed_over(make_profile: MakeProfile, tmp_path: Path) -> None:
    def row(good: str, bad: str) -> dict[str, Any]:
        return {"chosen": chat("Why?", good), "rejected": chat("Why?", bad)}

    rows = [row("same", "same"), row("long" * 100, "bad"), row("good", "bad"), row("fine", "poor")]
    profile = make_profile(data={"name": str(write_rows(tmp_path / "rows.jsonl", rows))})
    prepared = rehearse(profile, tmp_path / "few")
    answers = [row["chosen"][-1]["content"] for row in written(prepared)]
    assert answers == ["good", "fine"]
    assert "the data set has 2 usable pairs" in prepared.notes


def test_rows_of_text_stay_rows_of_text(make_profile: MakeProfile, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no"} for n in range(3)]
    profile = make_profile(data={"name": str(write_rows(tmp_path / "rows.jsonl", rows))})
    prepared = rehearse(profile, tmp_path / "text")
    assert written(prepared) == rows


@pytest.mark.parametrize(
    ("heads", "kv_heads", "width"), [(64, 8, 8192), (28, 4, 3584), (32, 32, 4096), (9, 3, 576), (8, 1, 2048)]
)
def test_a_shrunk_config_keeps_its_proportions_in_whole_blocks(heads: int, kv_heads: int, width: int) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config: PretrainedConfig = LlamaConfig(
        hidden_size=width, num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=3 * width,
        num_hidden_layers=32, max_position_embeddings=131072, rope_parameters=rope, vocab_size=300,
    )  # fmt: skip
    small = shrink(config, 4, "tiny")
    assert small.num_attention_heads * kv_heads == small.num_key_value_heads * heads
    assert small.hidden_size % NF4_BLOCK == small.intermediate_size % NF4_BLOCK == 0
    assert small.head_dim * small.num_attention_heads == small.hidden_size
    assert small.hidden_size < 512
    assert small.rope_parameters == rope
    AutoModelForCausalLM.from_config(small)(torch.arange(8)[None])


def test_alike_answers_are_cut_to_where_they_part() -> None:
    encoder = PairTokenizer(stand_in_tokenizer())
    story = "Once upon a time, in a land far away, " * 20
    long = read_row(
        {"chosen": chat("Tell." * 90, story + "the end."), "rejected": chat("Tell." * 90, story + "or.")}
    )
    pair = encoder.pair(0, Shortener(encoder, 128)(long))
    assert pair.length_tokens <= 128
    assert pair.chosen_ids != pair.rejected_ids
    short = read_row({"chosen": chat("a", "b"), "rejected": chat("a", "c")})
    assert Shortener(encoder, 128)(short) is short


def test_a_length_that_no_bytes_fit_into_is_one_line() -> None:
    with pytest.raises(TrainerError, match=r"data.max_length_tokens: 60 leaves \d+ bytes of text"):
        Shortener(PairTokenizer(stand_in_tokenizer()), 60)


def arguments(profile: Profile, into: Path, *options: str) -> list[str]:
    file = into.parent / "profile.toml"
    file.write_text(to_toml(profile))
    return [str(file), "--into", str(into), "--json", *options]


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "dpo_trainer.rehearsal"]
    command += arguments(FAR, tmp_path / "out", "--layers", "5")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert set(answer) == {"model", "data", "adapter", "notes"}
    assert answer["adapter"] == str(tmp_path / "out" / "adapter")
    assert AutoConfig.from_pretrained(answer["model"]).num_hidden_layers == 5


def test_what_libraries_print_is_kept_out_of_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def noisy(*_: object) -> Prepared:
        print("a library's greeting")  # noqa: T201
        return Prepared("model", "data", "", [])

    monkeypatch.setattr("dpo_trainer.rehearsal.prepare.prepare", noisy)
    assert cli.exit_code_of(main, "rehearsal", arguments(FAR, tmp_path / "out")) == 0
    assert json.loads(capfd.readouterr().out)["model"] == "model"


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"model": {"base": "./no-such-model"}}, 2, "model.base: ./no-such-model: there is no such folder"),
        ({"model": {"pad_token": "<nope>"}}, 1, "model.pad_token: <nope>: is not in the vocabulary"),
    ],
)
def test_what_cannot_be_rehearsed_is_one_line(
    make_profile: MakeProfile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, dict[str, Any]],
    code: int,
    told: str,
) -> None:
    asked = arguments(make_profile(**changes), tmp_path / "out")
    assert cli.exit_code_of(main, "rehearsal", asked) == code
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith(f"error: {told}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", ["model", "pairs.jsonl", "adapter"])
def test_nothing_is_overwritten(
    make_profile: MakeProfile, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / there).write_text("mine")
    assert cli.exit_code_of(main, "rehearsal", arguments(make_profile(), tmp_path / "out")) == 2
    assert capsys.readouterr().err == (
        f"error: --into: {tmp_path / 'out' / there}: is there already; give another folder or remove it\n"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [there]
    assert (tmp_path / "out" / there).read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"name": "./gone.jsonl"}}, "data.name: gone.jsonl: there is no such file"),
        ({"data": {"max_length_tokens": 40}}, "no pair of its first 20000 rows can be trained on"),
        ({"adapter": {"path": "x", "target_modules": ("nope",)}}, "adapter.target_modules: nope"),
    ],
)
def test_data_and_layers_that_are_not_there_are_named(
    make_profile: MakeProfile, tmp_path: Path, changes: dict[str, dict[str, Any]], told: str
) -> None:
    with pytest.raises(TrainerError) as failure:
        rehearse(make_profile(**changes), tmp_path / "out")
    assert told in failure.value.format_message()
    assert failure.value.exit_code == 2
