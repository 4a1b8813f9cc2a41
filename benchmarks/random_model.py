"""A model of random weights with a tokenizer of bytes, made in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_MAKE = """
import json, sys, torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
folder, shape = sys.argv[1], json.loads(sys.argv[2])
core = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
core.add_special_tokens(["<end>"])
template = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"
words = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>", chat_template=template)
words.save_pretrained(folder)
torch.set_default_dtype(torch.bfloat16)
config = Qwen2Config(
    **({"vocab_size": len(words), "tie_word_embeddings": False} | shape),
    eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=None,
)
Qwen2ForCausalLM(config).save_pretrained(folder, max_shard_size="300MB")
"""


def make_model(folder: Path, **shape: int) -> Path:
    """A Qwen2 with these fields of its config; as many words as bytes where `vocab_size` is not among them."""
    folder.mkdir()
    run_python(_MAKE, str(folder), json.dumps(shape))
    return folder


def run_python(code: str, *arguments: str) -> str:
    """The last line that a program prints.

    Raises:
        SystemExit: it failed; with its last word.
    """
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"error: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
