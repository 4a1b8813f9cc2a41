"""What a plan depends on, whether a profile says it or a row of measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from dpo_profiles.engine_files import (
    EngineFile,
    offloads_optimizer,
    offloads_parameters,
    read_accelerate,
    read_deepspeed,
    reshards_after_forward,
)
from dpo_profiles.errors import ProfileError
from dpo_profiles.plan.architecture import Architecture, with_fused_experts
from dpo_profiles.plan.calibration import Kernels
from dpo_profiles.plan.sharding import Sharding
from dpo_profiles.plan.zero3 import Zero3, zero3_of
from dpo_profiles.schema import Profile

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "uint8": 1}
Offload = Literal["none", "cpu-params", "cpu-optimizer", "cpu-all"]
"""What rests in the host's memory. FSDP moves the optimizer along with its parameters; under ZeRO-3 each is a
setting of its own."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A training job in the terms that memory depends on."""

    name: str
    """Of the profile or the row, for messages."""
    model: Architecture
    quantized: bool
    """NF4, or in the arithmetic's type."""
    double_quantization: bool = True
    storage_bytes: int = 1
    """Of an element that holds packed codes."""
    compute_bytes: int = 2
    full: bool = False
    """Whether all weights are trained and there is no adapter; DPO then holds a second, frozen model."""
    targets: tuple[str, ...]
    r: int
    adapter_bytes: int = 4
    """Of a parameter of the adapter as the engine holds it."""
    adapter_input_bytes: int = 2
    """Of an element of the copy of its input that each adapted layer keeps: 4 where the adapter computes in
    float32, 2 under autocast."""
    dropout: bool = False
    """Whether the adapter's input is dropped out, which keeps one more copy and a mask of a byte."""
    master_bytes: int = 0
    """Of a second, precise copy that the optimizer updates (DeepSpeed's float32 masters); 0 is none."""
    moment_bytes: int = 4
    eight_bit_moments: bool = False
    adapter_copies: int = 1
    """DPO holds two: the policy's, and the frozen one that is the reference."""
    replicated_adapters: bool = False
    """Whether adapters stay whole beside a sharded base, as fms-acceleration keeps them for its kernels."""
    sequences: int
    """In one sample: a preference pair has two, a packed one is one."""
    length_tokens: int
    micro_batch: int
    """Samples in one forward pass and rank."""
    eval_micro_batch: int = 0
    checkpointing: bool = True
    checkpoint_bytes: int = 2
    """Of an element that checkpointing keeps."""
    eager_attention: bool = False
    kernels: Kernels = "plain"
    sharding: Sharding
    zero3: Zero3 | None = None
    offload: Offload = "none"
    accumulates: bool = True
    """Whether gradients of an earlier micro-batch are there in every pass."""
    loads_whole: bool = False
    """Whether each rank holds the whole base on its device before it is sharded."""
    gradients_stay: bool = False
    """Whether gradients are still there after the update."""
    gpu: str = ""

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.sharding.world_size

    @property
    def offloads_parameters(self) -> bool:
        """Whether shards of parameters rest in the host's memory."""
        return self.offload in ("cpu-params", "cpu-all")

    @property
    def offloads_optimizer(self) -> bool:
        """Whether gradients and optimizer states rest there, and the update is computed there."""
        along = self.offload == "cpu-params" and self.zero3 is None
        return along or self.offload in ("cpu-optimizer", "cpu-all")

    @property
    def tokens(self) -> int:
        """In one forward pass that is trained on."""
        return self.sequences * self.micro_batch * self.length_tokens

    @property
    def eval_tokens(self) -> int:
        """In one forward pass of an evaluation."""
        return self.sequences * (self.eval_micro_batch or self.micro_batch) * self.length_tokens

    @property
    def calibrated(self) -> bool:
        """Whether there are measurements of this kind: adapters on one packed sequence, FSDP1 or one A100."""
        return (
            self.sequences == 1
            and self.sharding.backend in ("single", "fsdp")
            and self.gpu.startswith("A100")
            and self.offload == "none"
            and self.sharding.reshards
            and self.checkpointing
        )


def workload_of(profile: Profile, model: Architecture) -> Workload:
    """The job that a profile describes, as this package's trainer runs it.

    The trainer computes in torch's operators, log-probs tile by tile without whole logits (TRL's fused head),
    and keeps the adapter in its master type; DeepSpeed keeps it in the arithmetic's type and a float32 master besides.

    Raises:
        ProfileError: an engine file cannot be read, or all weights of a quantised base are to be trained.
    """
    engine, full = profile.engine, profile.adapter.kind == "none"
    file = _engine_file(profile)
    settings = _zero3(profile, file, model)
    compute = DTYPE_BYTES[compute_dtype(profile)]
    master = compute if full else DTYPE_BYTES[profile.adapter.master_dtype]
    if full and profile.quantization.kind != "none":
        raise ProfileError(
            f"{profile.name}: adapter.kind: none trains all weights, and quantization.kind is "
            f"{profile.quantization.kind}; set one of the two to its other value"
        )
    zero3 = settings is not None
    return Workload(
        name=profile.name,
        model=with_fused_experts(model),
        quantized=profile.quantization.kind == "nf4",
        double_quantization=profile.quantization.double_quantization,
        storage_bytes=DTYPE_BYTES[profile.quantization.storage_dtype],
        compute_bytes=compute,
        full=full,
        targets=() if full else profile.adapter.target_modules,
        r=profile.adapter.r,
        adapter_bytes=compute if zero3 else master,
        adapter_input_bytes=compute if zero3 else master,
        dropout=profile.adapter.dropout > 0,
        master_bytes=4 if zero3 else 0,
        moment_bytes=4 if zero3 else master,
        eight_bit_moments=profile.optimizer.name != "adamw_torch",
        adapter_copies=2,
        sequences=2,
        length_tokens=profile.data.max_length_tokens,
        micro_batch=profile.train.micro_batch_pairs,
        eval_micro_batch=profile.eval.micro_batch_pairs,
        checkpointing=profile.train.gradient_checkpointing,
        checkpoint_bytes=compute,
        eager_attention=profile.model.attention == "eager",
        kernels="torch",
        sharding=Sharding(
            backend=engine.backend,
            world_size=engine.world_size,
            persistence_elements=settings.persistence if settings else -1,
            reshards=zero3 or file is None or reshards_after_forward(file),
        ),
        zero3=settings,
        offload=_offload(file),
        loads_whole=engine.backend == "fsdp",
        gpu=_card(profile.hardware.gpu),
    )


def compute_dtype(profile: Profile) -> str:
    """The arithmetic's type: "auto" is bfloat16 where the profile names a GPU and float32 where not."""
    if profile.model.compute_dtype != "auto":
        return profile.model.compute_dtype
    return "bfloat16" if profile.hardware.gpu else "float32"


def _engine_file(profile: Profile) -> EngineFile | None:
    engine = profile.engine
    if engine.backend == "deepspeed-zero3":
        return read_deepspeed(Path(engine.deepspeed_file))
    return read_accelerate(Path(engine.accelerate_file)) if engine.accelerate_file else None


def _zero3(profile: Profile, file: EngineFile | None, model: Architecture) -> Zero3 | None:
    if file is None or profile.engine.backend != "deepspeed-zero3":
        return None
    zero = file.table.get("zero_optimization")
    return zero3_of(zero if isinstance(zero, dict) else {}, model.hidden_size)


def _offload(file: EngineFile | None) -> Offload:
    if file is None:
        return "none"
    if offloads_parameters(file):
        return "cpu-all" if offloads_optimizer(file) else "cpu-params"
    return "cpu-optimizer" if offloads_optimizer(file) else "none"


def _card(name: str) -> str:
    """The part of a card's name that figures are kept by."""
    return next((card for card in ("A100", "H100") if card in name), name)
