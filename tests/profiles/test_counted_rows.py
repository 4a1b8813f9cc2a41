"""Rows that the plan counts by mechanism, counted in torch's own operators on a small decoder with an adapter."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from dpo_profiles.plan import calibration

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")]

TOKENS, HIDDEN = 256, 128
ROW = TOKENS * HIDDEN * 2


def peak_bytes(**changes: int) -> int:
    """Most bytes that a checkpointed training pass holds at once besides parameters, in bfloat16."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from transformers import LlamaConfig, LlamaForCausalLM

    class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Bytes of the storages that operators have made and that still live."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.live = self.peak = 0
            self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = operator(*args, **(kwargs or {}))
            given = [x.untyped_storage() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            known = {id(storage) for storage in given}
            for tensor in tree_leaves(made):
                storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
                if storage is None or id(storage) in known or storage in self.seen:
                    continue
                self.seen.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
            self.peak = max(self.peak, self.live)
            return made

        def free(self, size: int) -> None:
            self.live -= size

    sizes = {"intermediate_size": 448, "num_hidden_layers": 3, "vocab_size": 8, **changes}
    config = LlamaConfig(hidden_size=HIDDEN, num_attention_heads=4, num_key_value_heads=1, **sizes)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    lora = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    trained = get_peft_model(model, lora)
    trained.enable_input_require_grads()
    trained.gradient_checkpointing_enable({"use_reentrant": False})
    trained.train()
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    with Held() as held:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = trained(input_ids=ids, use_cache=False).logits
        logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).sum().backward()
    return int(held.peak)


def test_each_layer_more_keeps_one_row_more() -> None:
    assert peak_bytes(num_hidden_layers=5) - peak_bytes() == pytest.approx(2 * ROW, rel=0.01)


def test_a_wider_mlp_takes_six_rows_of_its_width() -> None:
    rows = calibration.MLP_SAVED + calibration.MLP_TEMPORARY
    wider = peak_bytes(intermediate_size=448 + 256) - peak_bytes()
    assert wider == pytest.approx(rows * TOKENS * 256 * 2, rel=0.01)


def test_a_logit_takes_fourteen_bytes_with_torchs_own_loss() -> None:
    more = peak_bytes(vocab_size=20_480) - peak_bytes(vocab_size=10_240)
    assert more == pytest.approx(calibration.KERNELS["plain"].logit_bytes * TOKENS * 10_240, rel=0.01)
