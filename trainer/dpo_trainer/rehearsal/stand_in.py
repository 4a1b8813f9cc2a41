"""A Qwen2 config and a tokenizer of bytes, for where a model's own cannot be had."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config

CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' -%}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' -}}"
    "{%- else -%}{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for message in messages -%}{%- if not (loop.first and message['role'] == 'system') -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""Qwen's, with a default system turn, but for tools; the default text is short, as each byte is a token."""

_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_VOCABULARY = 8256
"""Rows of the embeddings, more than the tokenizer needs: at the small model's width they hold 1,056,768
numbers, just above the usual persistence threshold of ZeRO-3 (1,048,576), below which it shards nothing."""


def stand_in_tokenizer(pad_token: str = "") -> PreTrainedTokenizerFast:
    """One token a byte, Qwen's special tokens and `pad_token`, and Qwen's chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(dict.fromkeys((*_SPECIAL_TOKENS, *filter(None, (pad_token,))))))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token=pad_token or "<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


def qwen2_config() -> Qwen2Config:
    """The proportions of Qwen2.5-72B-Instruct, with few embeddings."""
    return Qwen2Config(
        architectures=["Qwen2ForCausalLM"],
        vocab_size=_VOCABULARY,
        hidden_size=8192,
        intermediate_size=29568,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=False,
    )
