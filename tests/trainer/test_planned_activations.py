"""The plan's peaks of each pass against PyTorch's memory tracker, on the trainer's own model without its bytes.

Everything that allocates is real: our skeleton, peft's layers on NF4, TRL's trainer with its fused head, checkpointing,
loss, backward pass and AdamW. Tensors are fake, so a wide model takes no memory. They are fake CPU tensors, because
autograd asks for CUDA's device guard, which a build without CUDA lacks; where CUDA takes another operator, that one
is put in its place (`OnGpu`, `on_gpu`). The fake kernel of attention on a CPU keeps what CUDA's memory-efficient one
keeps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import bitsandbytes
import msgspec
import pytest
import torch
import trl.kernels.chunked_logprob
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from trl import DPOTrainer

from dpo_profiles.load import load_profile
from dpo_profiles.plan import passes
from dpo_profiles.plan.make import planned_architecture
from dpo_profiles.plan.phases import estimate
from dpo_profiles.plan.report import ACTIVATIONS
from dpo_profiles.plan.workload import workload_of
from dpo_profiles.plan.zero3 import zero3_of
from dpo_profiles.schema import Profile
from dpo_trainer import engine
from dpo_trainer.data.pairs import PairCollator, as_dataset
from dpo_trainer.data.tokenise import Pair
from dpo_trainer.dpo import settings
from dpo_trainer.dpo.trainer import PairTrainer
from dpo_trainer.emit.timer import StepTimer
from dpo_trainer.engine.single import SingleEngine
from dpo_trainer.model.adapter import add_policy, make_equal
from dpo_trainer.model.nf4 import state_tensors
from dpo_trainer.model.skeleton import build_skeleton, read_config

from .conftest import byte_tokenizer

PHASES = {"reference": 0.05, "forward": 0.01, "backward": 0.01, "step": 0.05}
"""Relative error of the activations that is let pass. In the reference's pass the tracker's own hooks hold the
embeddings' output for longer than it lives; at the update, the roots are so few bytes that a norm's are seen."""
CPU = torch.device("cpu")
Result = TypeVar("Result")


class Fake(FakeTensorMode):
    """Tensors without values: a mask is true everywhere, so every position is scored, and a number read is 1."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].dtype.is_floating_point else 1
        if func is torch.ops.aten.nonzero.default:
            with self:
                return torch.empty(args[0].numel(), args[0].dim(), dtype=torch.int64)
        return super().dispatch(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


class OnGpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """bitsandbytes' product with NF4 as its CUDA backend computes it on more than 1536 rows."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.bitsandbytes.gemm_4bit.default:
            return func(*args, **(kwargs or {}))
        return self._dequantised(*args, **(kwargs or {}))

    def _dequantised(
        self,
        rows: Any,
        codes: Any,
        shape: Any,
        absmax: Any,
        block: int,
        kind: str,
        bias: Any = None,
        absmax_8bit: Any = None,
        absmax_code: Any = None,
        absmax_offset: Any = None,
    ) -> torch.Tensor:
        operators = torch.ops.bitsandbytes
        if absmax_8bit is not None:
            nested = absmax_8bit, absmax, absmax_code, 256, torch.float32
            scales = operators.dequantize_blockwise.default(*nested)
            absmax = scales + absmax_offset
        weight = operators.dequantize_4bit.default(codes, absmax, block, kind, shape, rows.dtype)
        return nn.functional.linear(rows, weight, bias)


class Tracker(MemTracker):  # type: ignore[no-untyped-call]
    """PyTorch's tracker, which would put a gradient hook on parameters that can have no gradient."""

    def _track_module_params_and_buffers(
        self, module: nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)

    def peak_bytes(self, act: Callable[[], Result]) -> tuple[int, Result]:
        """Most bytes at once while something is done, and its result."""
        with self, OnGpu():  # type: ignore[no-untyped-call]
            result = act()
        return int(self.get_tracker_snapshot("peak")[CPU]["Total"]), result


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA computes in one operator where a CPU takes several, which allocate."""
    for name in ("_forward_tile", "_backward_tile", "_addmm_fp32"):
        monkeypatch.setattr(trl.kernels.chunked_logprob, name, lambda *_, **__: None)

    def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return torch.native_dropout(x, p, training)[0] if training and p else x

    monkeypatch.setattr(nn.functional, "dropout", dropout)
    # bitsandbytes keeps its tables for ever; they must not be made in fake mode.
    bitsandbytes.functional.quantize_4bit(torch.zeros(64, 64), quant_type="nf4", compress_statistics=True)


def make_trainer(profile: Profile, folder: Path) -> PairTrainer:
    """The job's trainer as `job.py` puts it together, before weights are loaded."""
    chosen = engine.choose(profile)
    config = read_config(folder, "wide")
    model = add_policy(
        build_skeleton(config, profile, chosen.compute_dtype, chosen.device), profile.adapter, None
    )
    tokenizer = byte_tokenizer()
    trainer = PairTrainer(
        ranks=chosen.ranks,
        timer=StepTimer(chosen.device),
        save=lambda step: None,
        in_evaluation=nullcontext,
        model=model,
        args=settings.training_arguments(profile, chosen, folder / "scratch"),
        train_dataset=as_dataset([Pair(id=0, prompt_ids=[1], chosen_ids=[2], rejected_ids=[3])]),
        processing_class=tokenizer,
        data_collator=PairCollator(pad_token_id=tokenizer.pad_token_id),
    )
    make_equal(trainer.policy, chosen.adapter_dtype)
    if profile.train.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    return trainer


def fill(model: PeftModel, dtype: torch.dtype) -> None:
    """Fake weights in place of hollow ones; codes are no `Params4bit`, which cannot hold a fake tensor."""
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            if isinstance(module, Linear4bit) and name == "weight":
                codes, state = bitsandbytes.functional.quantize_4bit(
                    torch.empty(old.shape, dtype=dtype),
                    compress_statistics=old.compress_statistics,
                    quant_type="nf4",
                    quant_storage=old.quant_storage,
                )
                new = nn.Parameter(codes, requires_grad=False)
                module.quant_state = new.__dict__["quant_state"] = state
            else:
                new = nn.Parameter(torch.empty(old.shape, dtype=old.dtype), requires_grad=old.requires_grad)
            setattr(module, name, new)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    model.get_base_model().tie_weights()


def measure(profile: Profile, folder: Path) -> dict[str, int]:
    """The tracker's peak of each phase, where an earlier micro-batch has left its gradients, in bytes."""
    trainer = make_trainer(profile, folder)
    peaks = {}
    with Fake(allow_non_fake_inputs=True):
        model = trainer.model.train()
        fill(trainer.policy, getattr(torch, profile.model.compute_dtype))
        shape = 2 * profile.train.micro_batch_pairs, profile.data.max_length_tokens
        names = ("input_ids", "attention_mask", "completion_mask")
        batch = {name: torch.ones(shape, dtype=torch.int64) for name in names}
        optimizer = trainer.create_optimizer()
        for group in optimizer.param_groups:
            group["foreach"] = True  # torch's choice on a GPU
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
        states = [tensor for layer in layers for tensor in state_tensors(layer.quant_state)]

        def tracker() -> Tracker:
            made = Tracker()
            made.track_external(model, optimizer, *states, *batch.values())
            return made

        peaks["reference"], reference = tracker().peak_bytes(lambda: trainer._compute_reference(dict(batch)))
        whole = {**batch, "ref_chosen_logps": reference[0], "ref_rejected_logps": reference[1]}
        both = tracker()
        peaks["forward"], loss = both.peak_bytes(lambda: DPOTrainer.compute_loss(trainer, model, whole))
        peaks["backward"], _ = both.peak_bytes(lambda: trainer.accelerator.backward(loss))

        def update() -> None:
            trainer.accelerator.clip_grad_norm_(trained, 1.0)
            optimizer.step()

        peaks["step"], _ = tracker().peak_bytes(update)
    return peaks


@dataclass(frozen=True)
class Shape:
    """A job: a model's config.json and changes to the demo's profile."""

    config: dict[str, Any]
    overrides: tuple[str, ...]


def shape(
    *overrides: str, hidden: int = 1024, inner: int = 2816, heads: int = 16, keys: int = 4, **changes: Any
) -> Shape:
    """Two layers of a Llama unless `changes` say otherwise; NF4 and checkpointing unless `overrides` do."""
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": 32_000,
        "tie_word_embeddings": False,
    }
    return Shape({**config, **changes}, overrides)


WHOLE = "train.gradient_checkpointing=false"
PLAIN = "quantization.kind=none"
DROPOUT = "adapter.dropout=0.05"
ATTENTION = "adapter.target_modules=['q_proj','k_proj','v_proj','o_proj']"
LONG = "data.max_length_tokens=1024"
SHAPES = {
    "biases, all kept, dropout": shape(WHOLE, DROPOUT, model_type="qwen2"),
    "wide": shape(LONG, hidden=2048, inner=5632),
    "8B, two pairs": shape(
        "data.max_length_tokens=2048",
        "train.micro_batch_pairs=2",
        DROPOUT,
        "quantization.double_quantization=false",
        hidden=4096,
        inner=14_336,
        heads=32,
        keys=8,
        vocab_size=128_256,
    ),
    "attention alone, short": shape(
        "data.max_length_tokens=256", ATTENTION, hidden=4096, inner=14_336, heads=32, keys=32
    ),
    "bfloat16 base": shape(LONG, PLAIN, hidden=2048, inner=5632),
    "norms of heads, all kept": shape(LONG, WHOLE, model_type="qwen3", head_dim=128),
    "eager": shape("model.attention=eager"),
    "float32, tied": shape(PLAIN, "model.compute_dtype=float32", tie_word_embeddings=True),
}  # fmt: skip


def profile_of(job: Shape, folder: Path) -> Profile:
    """The demo's profile with the job's model and settings."""
    (folder / "config.json").write_text(json.dumps(job.config))
    usual = (
        f"model.base={folder}",
        "model.compute_dtype=bfloat16",
        "quantization.kind=nf4",
        "train.gradient_checkpointing=true",
        "train.gradient_accumulation_steps=2",
        "train.micro_batch_pairs=1",
        "data.max_length_tokens=512",
    )
    return load_profile("demo", (*usual, *job.overrides))


@pytest.mark.parametrize("name", SHAPES)
def test_planned_peaks_are_those_of_pytorchs_memory_tracker(name: str, tmp_path: Path, on_gpu: None) -> None:
    profile = profile_of(SHAPES[name], tmp_path)
    planned = estimate(workload_of(profile, planned_architecture(profile))).phases
    measured = measure(profile, tmp_path)
    for phase, within in PHASES.items():
        standing = sum(size for part, size in planned[phase].items() if part != ACTIVATIONS)
        assert sum(planned[phase].values()) == pytest.approx(measured[phase], rel=0.05), phase
        # Weights are most of a small model, and would hide what is left out of the rest.
        left = measured[phase] - standing
        assert planned[phase][ACTIVATIONS] == pytest.approx(left, rel=within), phase


def test_reentrant_checkpointing_as_under_zero3_keeps_the_output_that_was_computed_again(
    tmp_path: Path, on_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SingleEngine, "reentrant_checkpointing", True)
    job = shape(LONG, "adapter.master_dtype=bfloat16", hidden=2048, inner=5632)
    profile = profile_of(job, tmp_path)
    workload = workload_of(profile, planned_architecture(profile))
    # The layers' passes go by it; nothing is sharded, so the rest of the plan must not.
    reentrant = msgspec.structs.replace(workload, zero3=zero3_of({}, workload.model.hidden_size))
    played = max(moment.size for moment in passes.backward(reentrant))
    standing = {k: v for k, v in estimate(workload).phases["backward"].items() if k != ACTIVATIONS}
    measured = measure(profile, tmp_path)["backward"] - sum(standing.values())
    assert played == pytest.approx(measured, rel=PHASES["backward"])
