"""Conversations become prompt and completion by any chat template, with exactly one end of turn."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from dpo_trainer.data.conversation import UnusableRowError, read_row
from dpo_trainer.data.tokenise import Pair, PairTokenizer

from .conftest import CHATML, byte_tokenizer, chat

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Opens a block of thought for an answer to come, and shows none in an answer that was given.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# Rewrites what came before once there is an answer.
REWRITING = (
    "{% for m in messages %}{{ '<|im_start|>' if messages[-1]['role'] == 'user' else '<s>' }}"
    "{{ m['content'] }}{{ m['content'] if m['role'] == 'assistant' else '' }}<|im_end|>{% endfor %}"
)

TOKENIZERS = {
    "ChatML": lambda: byte_tokenizer(CHATML),
    "Llama 3": lambda: byte_tokenizer(LLAMA3, eos="<|eot_id|>", bos="<|begin_of_text|>"),
    "Mistral": lambda: byte_tokenizer(MISTRAL, eos="</s>", bos="<s>"),
    "Gemma": lambda: byte_tokenizer(GEMMA, eos="<end_of_turn>", bos="<bos>"),
}
END_OF_TURN = {"ChatML": "<|im_end|>", "Llama 3": "<|eot_id|>", "Mistral": "</s>", "Gemma": "<end_of_turn>"}


def encode(tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> tuple[Pair, PairTokenizer]:
    encoder = PairTokenizer(tokenizer)
    return encoder.pair(0, read_row(row)), encoder


def row_of(*turns: str, good: str = "Good.", bad: str = "Bad!", system: str = "") -> dict[str, Any]:
    return {
        "chosen": chat(*turns, good, system=system),
        "rejected": chat(*turns, bad, system=system),
    }


@pytest.mark.parametrize("family", TOKENIZERS)
@pytest.mark.parametrize("turns", [("Hi",), ("Hi", "Hello.", "And now?")], ids=["one turn", "three turns"])
def test_prompt_waits_for_the_answer_and_completion_is_the_answer(
    family: str, turns: tuple[str, ...]
) -> None:
    tokenizer = TOKENIZERS[family]()
    pair, _ = encode(tokenizer, row_of(*turns))
    waiting = tokenizer.apply_chat_template(chat(*turns), tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(pair.prompt_ids) == waiting
    assert tokenizer.decode(pair.chosen_ids).lstrip() == f"Good.{END_OF_TURN[family]}"
    assert tokenizer.decode(pair.rejected_ids).lstrip() == f"Bad!{END_OF_TURN[family]}"


@pytest.mark.parametrize("family", TOKENIZERS)
def test_each_answer_has_one_end_of_turn_and_each_sequence_at_most_one_bos(family: str) -> None:
    tokenizer = TOKENIZERS[family]()
    pair, _ = encode(tokenizer, row_of("Hi", "Hello.", "And?"))
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN[family])
    for ids in (pair.chosen_ids, pair.rejected_ids):
        assert ids.count(end) == 1
        assert ids[-1] == end, "a newline behind the end of turn is never generated"
    if tokenizer.bos_token_id is not None:
        assert (pair.prompt_ids + pair.chosen_ids).count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("family", ["ChatML", "Llama 3"])
def test_a_system_message_stands_in_the_prompt_only(family: str) -> None:
    tokenizer = TOKENIZERS[family]()
    pair, _ = encode(tokenizer, row_of("Hi", system="Talk like a pirate."))
    assert tokenizer.decode(pair.prompt_ids).count("Talk like a pirate.") == 1
    assert "pirate" not in tokenizer.decode(pair.chosen_ids)


def test_a_default_system_prompt_is_never_part_of_a_completion() -> None:
    tokenizer = byte_tokenizer(CHATML)
    pair, _ = encode(tokenizer, row_of("Hi"))
    assert "Be brief." in tokenizer.decode(pair.prompt_ids)
    assert "Be brief." not in tokenizer.decode(pair.chosen_ids)


def test_a_conversation_that_the_template_refuses_is_unusable_with_its_reason() -> None:
    with pytest.raises(UnusableRowError, match="Only user and assistant roles"):
        encode(TOKENIZERS["Mistral"](), row_of("Hi", system="Be kind."))


def test_a_prompt_that_is_rendered_differently_once_answered_comes_from_the_whole_conversation() -> None:
    tokenizer = byte_tokenizer(THINKING)
    pair, encoder = encode(tokenizer, row_of("Hi"))
    assert tokenizer.decode(pair.prompt_ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(pair.chosen_ids) == "Good.<|im_end|>"
    assert encoder.moved_prompts == 1


def test_a_template_that_writes_the_answer_twice_is_refused() -> None:
    with pytest.raises(UnusableRowError, match="exactly once"):
        encode(byte_tokenizer(REWRITING), row_of("Hi"))


def test_an_answer_that_writes_the_end_of_turn_token_is_unusable() -> None:
    with pytest.raises(UnusableRowError, match="end-of-turn"):
        encode(byte_tokenizer(), row_of("Hi", good="Done.<|im_end|>\nMore."))


def test_a_template_without_an_end_of_turn_gets_the_end_of_sequence() -> None:
    tokenizer = byte_tokenizer("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    pair, _ = encode(tokenizer, row_of("Hi"))
    assert pair.chosen_ids[-1] == tokenizer.eos_token_id
    assert pair.chosen_ids.count(tokenizer.eos_token_id) == 1


def test_text_columns_become_a_conversation_where_there_is_a_template() -> None:
    tokenizer = byte_tokenizer()
    texts, _ = encode(tokenizer, {"prompt": "Hi", "chosen": "Good.", "rejected": "Bad!"})
    turns, _ = encode(tokenizer, row_of("Hi"))
    assert texts == turns


def test_text_that_is_rendered_already_is_taken_as_it_stands() -> None:
    tokenizer = byte_tokenizer()
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    pair, _ = encode(tokenizer, {"prompt": prompt, "chosen": "Good.", "rejected": "Bad!"})
    assert tokenizer.decode(pair.prompt_ids) == prompt
    assert tokenizer.decode(pair.chosen_ids) == "Good.<|im_end|>"


def test_text_for_a_model_without_template_ends_with_one_end_of_sequence() -> None:
    tokenizer = byte_tokenizer(None, eos="</s>")
    pair, _ = encode(tokenizer, {"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"})
    assert tokenizer.decode(pair.prompt_ids + pair.chosen_ids) == "1 + 1 = 2</s>"


@pytest.mark.parametrize(
    "prompt", [None, "Hi", chat("Hi")], ids=["no prompt column", "prompt text", "prompt turns"]
)
def test_the_prompt_column_may_repeat_the_shared_turns_or_be_missing(prompt: object) -> None:
    tokenizer = byte_tokenizer()
    whole, _ = encode(tokenizer, {**row_of("Hi"), "prompt": prompt})
    assert whole == encode(tokenizer, row_of("Hi"))[0]


@pytest.mark.parametrize("prompt", ["Hi", chat("Hi")], ids=["prompt text", "prompt turns"])
def test_answers_alone_follow_the_prompt_column(prompt: object) -> None:
    answers = {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "Good."}],
        "rejected": [{"role": "assistant", "content": "Bad!"}],
    }
    tokenizer = byte_tokenizer()
    assert encode(tokenizer, answers)[0] == encode(tokenizer, row_of("Hi"))[0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": chat("Hi", "A"), "rejected": chat("Ho", "B")}, "differ before"),
        ({"chosen": chat("Hi", "A"), "rejected": chat("Hi", "A")}, "are the same"),
        ({"chosen": chat("Hi"), "rejected": chat("Hi", "B")}, "assistant turn"),
        ({"chosen": chat("Hi", " "), "rejected": chat("Hi", "B")}, "empty"),
        ({"chosen": "A", "rejected": "B"}, "no prompt text"),
        ({"chosen": "A", "rejected": chat("Hi", "B")}, "neither both"),
        ({"chosen": [{"content": "A"}], "rejected": [{"content": "B"}]}, "no role"),
        ({"chosen": chat("Hi", None), "rejected": chat("Hi", "B")}, "no text content"),  # type: ignore[arg-type]
    ],
)
def test_a_row_that_is_no_preference_names_the_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        read_row(row)


@pytest.mark.parametrize(
    ("wants", "end"),
    [("messages[0]['role'] == 'system'", "<|im_end|>"), ("messages | length > 5", "</s>")],
    ids=["a system turn first", "more turns"],
)
def test_a_template_that_refuses_a_lone_question_still_has_an_end_of_turn(wants: str, end: str) -> None:
    refusing = "{% if not (" + wants + ") %}{{ raise_exception('refused') }}{% endif %}" + CHATML
    tokenizer = byte_tokenizer(refusing, eos="</s>")
    assert PairTokenizer(tokenizer).end_of_turn_id == tokenizer.convert_tokens_to_ids(end)
