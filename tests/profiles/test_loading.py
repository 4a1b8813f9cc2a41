from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpo_profiles.errors import ProfileError
from dpo_profiles.load import load_profile, parse_resolved, shipped_names
from dpo_profiles.render import to_toml

MINIMAL = 'name = "mine"\n\n[model]\nbase = "some/model"\n'


def message_of(name: str, *overrides: str) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(name, overrides)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_shipped_profile_loads_from_any_folder() -> None:
    shipped = {"demo", "fsdp", "fsdp-seed", "fsdp2", "multinode", "single", "zero3"}
    assert shipped <= set(shipped_names())
    for name in shipped_names():
        assert load_profile(name).name == name


def test_helper_bases_are_not_listed() -> None:
    assert "seed-72b" not in shipped_names()


def test_a_shipped_name_wins_over_a_file_and_a_path_means_the_file() -> None:
    Path("demo").write_text(MINIMAL)
    Path("demo.toml").write_text(MINIMAL)
    assert load_profile("demo").name == "demo"
    assert load_profile("./demo").name == "mine"
    assert load_profile("demo.toml").name == "mine"


def test_a_profile_may_start_with_a_byte_order_mark_and_end_lines_as_windows_does() -> None:
    Path("mine.toml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_profile("mine.toml").name == "mine"


def test_a_family_is_merged_key_by_key_and_lists_are_replaced() -> None:
    Path("base.toml").write_text(MINIMAL + "[train]\nmax_steps = 7\nseed = 5\n[adapter]\nr = 4\n")
    Path("child.toml").write_text(
        'extends = "base.toml"\nname = "child"\n[train]\nseed = 6\n[adapter]\ntarget_modules = ["q_proj"]\n'
    )
    child = load_profile("child.toml")
    assert (child.name, child.model.base) == ("child", "some/model")
    assert (child.train.max_steps, child.train.seed) == (7, 6)
    assert (child.adapter.r, child.adapter.target_modules) == (4, ("q_proj",))


def test_a_path_in_extends_is_relative_to_the_file_that_holds_it() -> None:
    Path("family/bases").mkdir(parents=True)
    Path("family/bases/base.toml").write_text(MINIMAL)
    Path("family/child.toml").write_text('extends = "bases/base.toml"\nname = "child"\n')
    assert load_profile("family/child.toml").model.base == "some/model"


def test_a_chain_that_closes_is_refused_with_its_links() -> None:
    Path("a.toml").write_text('extends = "b.toml"\n')
    Path("b.toml").write_text('extends = "./a.toml"\n')
    message = message_of("a.toml")
    assert (
        message
        == "b.toml: extends: the chain a.toml -> b.toml -> ./a.toml closes on itself; remove one extends"
    )


def test_a_mistake_in_a_base_is_named_with_the_base_unless_the_child_mends_it() -> None:
    Path("base.toml").write_text(MINIMAL + "[train]\nmax_steps = 0\n")
    Path("child.toml").write_text('extends = "base.toml"\n')
    Path("mended.toml").write_text('extends = "base.toml"\n[train]\nmax_steps = 1\n')
    assert message_of("child.toml").startswith("base.toml: train.max_steps: 0 ")
    assert load_profile("mended.toml").train.max_steps == 1


def test_engine_files_are_relative_to_the_profile_that_names_them() -> None:
    Path("family").mkdir()
    Path("family/ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    Path("family/base.toml").write_text(
        MINIMAL + '[engine]\nbackend = "deepspeed-zero3"\ndeepspeed_file = "ds.json"\n'
    )
    Path("child.toml").write_text('extends = "family/base.toml"\n')
    profile = load_profile("child.toml")
    assert profile.engine.deepspeed_file == str(Path.cwd() / "family" / "ds.json")


def test_what_an_engine_file_leaves_to_auto_contradicts_nothing() -> None:
    Path("ds.json").write_text(
        '{"zero_optimization": {"stage": 3}, "bf16": {"enabled": "auto"}, "gradient_accumulation_steps": "auto",'
        ' "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto", "gradient_clipping": "auto"}'
    )
    overrides = ["engine.deepspeed_file=ds.json", "train.gradient_accumulation_steps=3"]
    assert load_profile("zero3", overrides).train.gradient_accumulation_steps == 3


def test_an_accelerate_file_that_names_no_precision_casts_nothing() -> None:
    Path("fsdp.yaml").write_text("distributed_type: FSDP\nfsdp_config:\n  fsdp_version: 1\n")
    assert load_profile("fsdp", ["engine.accelerate_file=fsdp.yaml"]).model.autocast_dtype == "none"


def test_a_broken_engine_file_is_named_with_its_place() -> None:
    Path("ds.json").write_text('{\n  "zero_optimization": {,}\n}')
    Path("fsdp.yaml").write_text("distributed_type: FSDP\nfsdp_config: [\n")
    here = Path.cwd()
    assert message_of("zero3", "engine.deepspeed_file=ds.json").startswith(
        f"{here}/ds.json: line 2, column 25: is not JSON"
    )
    message = message_of("fsdp", "engine.accelerate_file=fsdp.yaml")
    assert message.startswith(f"{here}/fsdp.yaml: is not YAML: ")
    assert "line 3" in message


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("loss.beta=0.2", "loss.beta", 0.2),
        ("loss.beta=1", "loss.beta", 1.0),
        (" train.max_steps = 3 ", "train.max_steps", 3),
        ("train.gradient_checkpointing=false", "train.gradient_checkpointing", False),
        ("quantization.kind=none", "quantization.kind", "none"),
        ('data.name="./pairs.jsonl"', "data.name", "./pairs.jsonl"),
        ("data.name=./a=b.jsonl", "data.name", "./a=b.jsonl"),
        ("model.revision=1234567", "model.revision", "1234567"),
        ("model.revision=", "model.revision", ""),
        ("adapter.target_modules=['q_proj', 'v_proj']", "adapter.target_modules", ("q_proj", "v_proj")),
        ("description=a # b", "description", "a # b"),
        ("name=other", "name", "other"),
    ],
)
def test_an_override_is_a_toml_value_and_a_bare_word_is_text(override: str, path: str, value: object) -> None:
    found: object = load_profile("demo", [override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_wins() -> None:
    assert load_profile("demo", ["loss.beta=0.2", "loss.beta=0.3"]).loss.beta == 0.3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss.beta", "--set: 'loss.beta' has no value; write section.key=value"),
        ("=3", "--set: '=3' has no value; write section.key=value"),
        ("beta=0.2", "--set: beta: unknown key; did you mean loss.beta?"),
        ("loss.bta=0.2", "--set: loss.bta: unknown key; did you mean loss.beta?"),
        ("losss.beta=0.2", "--set: losss.beta: unknown section; did you mean [loss]?"),
        ("trainer.max_steps=2", "--set: trainer.max_steps: unknown section; did you mean [train]?"),
        ("wandb.beta=2", "--set: wandb.beta: unknown section; did you mean loss.beta?"),
        ("loss.beta=abc", "--set: loss.beta: 'abc' is text; give a number above 0 (factor)"),
        (
            "loss.beta=1\nname = 2",
            "--set: loss.beta: '1\\nname = 2' holds a control character; write it on one line",
        ),
        ("model=x", "--set: model: unknown key; did you mean [model]?"),
    ],
)
def test_a_wrong_override_is_one_line(override: str, expected: str) -> None:
    assert message_of("demo", override) == expected


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert message_of("dmeo").startswith(
        "dmeo: no shipped profile has this name; did you mean demo? (shipped "
    )
    assert message_of("xyzzy").startswith("xyzzy: no shipped profile has this name; shipped profiles are ")
    assert message_of("./zero.toml").startswith("./zero.toml: no such file; did you mean zero3? (shipped ")


def test_a_file_beside_is_offered_when_its_suffix_was_left_out() -> None:
    Path("mine.toml").write_text(MINIMAL)
    assert message_of("mine") == "mine: no shipped profile has this name; did you mean mine.toml?"


def test_what_is_no_readable_text_is_one_line() -> None:
    Path("folder.toml").mkdir()
    Path("latin.toml").write_bytes(b'name = "bad"\ndescription = "caf\xe9"\n')
    os.mkfifo("pipe.toml")
    Path("loop.toml").symlink_to("loop.toml")
    Path("large.toml").write_text("# " + "x" * (1 << 20))
    Path("deep.toml").write_text("a = " + "[" * 100_000)
    assert message_of("folder.toml") == "folder.toml: is a folder; name the file in it"
    assert message_of("latin.toml") == "latin.toml: line 2: is not UTF-8 text; save the file as UTF-8"
    assert message_of("pipe.toml") == "pipe.toml: is no plain file; copy its text into one"
    assert message_of("loop.toml").startswith(
        "loop.toml: cannot be read (Too many levels of symbolic links);"
    )
    assert message_of("large.toml") == "large.toml: is larger than 1 MiB; name the right file"
    assert message_of("deep.toml").startswith("deep.toml: is ")
    assert message_of("a\0b").startswith("'a\\x00b': no name or path of a profile; ")
    assert message_of("x" * 5000 + "/y.toml").endswith(", ".join(shipped_names()))


def test_a_resolved_profile_stands_alone_and_opens_without_its_engine_file() -> None:
    text = to_toml(load_profile("zero3"), comments=True)
    moved = text.replace(load_profile("zero3").engine.deepspeed_file, "/nowhere/ds.json")
    assert parse_resolved(moved, "profile.toml").engine.deepspeed_file == "/nowhere/ds.json"
    with pytest.raises(ProfileError, match="resolved profile stands alone"):
        parse_resolved('extends = "demo"\n' + text, "profile.toml")
    with pytest.raises(ProfileError, match=r"^runs/x/profile.toml: loss.bta: unknown key"):
        parse_resolved(text.replace("beta = ", "bta = ", 1), "runs/x/profile.toml")
