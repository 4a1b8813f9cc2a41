"""Numbers that come from measurement, each with its unit and the rows it was fitted on.

Rows are those of foundation-model-stack/fms-acceleration (scripts/benchmarks/refs), on A100-80GB with torch
2.4.1: "early" is a100_80gb.csv, "later" is a100_80gb_liger.csv, whose kernels are newer. A hidden row is
hidden_size x 2 bytes for each token. `benchmarks/plan_points.py --leave-one-out` holds models against each other.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kernels = Literal["plain", "fused_early", "fused_later", "fused_head", "torch"]
"""Who computes norms, rotary positions and the loss: torch's own operators, with whole logits; fused operators and
a fused cross-entropy (fms-acceleration's, of 2024's two reference files); those with the head fused into the loss;
or, in our trainer, torch's operators with TRL's fused head. The last is counted tensor by tensor (passes.py), so it
has no figures here."""


class KernelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one set of kernels keeps."""

    layer_rows: float
    """Hidden rows alive in one layer's backward pass besides those of the MLP, of keys and values, and the copies
    that adapters keep of their inputs; NF4 base."""
    unquantized_rows: float
    """Hidden rows more on a base that is not quantised: inputs that the adapters' products keep."""
    logit_bytes: float
    """Bytes for each logit at the end of the forward pass; 0 where logits never exist as a whole."""
    head_rows: float
    """Hidden rows alive there besides the checkpoints: the last layer's output, its norm, and their copies."""


KERNELS: dict[Kernels, KernelFigures] = {
    # Mistral-7B, early: FSDP1 on 2 GPUs (3.048 and 3.1735 GiB a sample) and one GPU (2.803). 14 bytes are
    # bfloat16 logits, their float32 copy, its shift and the log-softmax, counted in torch's own operators too.
    "plain": KernelFigures(layer_rows=10.0, unquantized_rows=4.0, logit_bytes=14.0, head_rows=3.0),
    # Mistral-7B, early: FSDP1 on 2 GPUs (2.9225 and 3.080 GiB a sample) and one GPU (2.2835).
    "fused_early": KernelFigures(layer_rows=6.0, unquantized_rows=5.0, logit_bytes=10.0, head_rows=2.0),
    # Llama-3-8B, later: 1 to 4 GPUs (4.9765 GiB a sample, all of it logits and checkpoints).
    "fused_later": KernelFigures(layer_rows=6.75, unquantized_rows=1.0, logit_bytes=8.0, head_rows=2.0),
    # Later: Llama-3-8B has 6.0 rows and Mistral-7B 7.5, on 1 to 4 GPUs; 6.75 lies between them.
    "fused_head": KernelFigures(layer_rows=6.75, unquantized_rows=1.0, logit_bytes=0.0, head_rows=5.0),
}
MLP_SAVED = 3
"""MLP-wide rows that the backward pass of a gated MLP keeps: gate, its activation, and the other factor."""
MLP_TEMPORARY = 3
"""MLP-wide rows of gradients at its product: one that comes in, and one for each factor. Both are counted in
torch's own operators on a CPU; the measured rows do not contradict them."""
EXPERT_ROWS = 1
"""Hidden rows for each expert of a token: its output, which the router's weight multiplies. By the source
alone (`MixtralSparseMoeBlock` in transformers 4)."""
PLAIN_MLP_SAVED = 2
"""Without a gate: the input of the activation and its output."""
KEY_VALUE_SAVED = 1
"""Rows of keys and of values that attention keeps, each."""
FSDP1_RETAINED_ROWS = 1
"""Hidden rows that stay for each layer whose backward pass is over, under FSDP1 with frozen parameters. All later
rows with a fused head on 2 and 4 GPUs: 30 rows more than on one GPU, for 32 layers; the mechanism is unknown."""
LAYERS_NOT_RETAINED = 2
REPLICATED_WORKSPACE_BYTES = 4
"""Bytes for each parameter of an adapter that is replicated beside FSDP1, at the peak: later rows of quantised
bases on 2 and 4 GPUs (0.051 GiB for 13.6 million)."""
CUBLAS_WORKSPACE_BYTES = {"A100": 2 * 8_519_680, "H100": 2 * (32 << 20)}
"""cuBLAS's workspace, one of the forward and one of the backward thread, at torch's defaults: 16.25 MiB in every
row of one GPU; of Hopper by the source alone (aten/src/ATen/cuda/CUDABlas.cpp)."""


class NvmlFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML shows above torch's peak: context and communication in bytes, cache as a share."""

    fixed_low_bytes: int
    fixed_high_bytes: int
    share_low: float
    """Of peak allocated minus resident."""
    share_high: float


MIB = 1 << 20
NVML_ONE_GPU = NvmlFigures(
    fixed_low_bytes=300 * MIB, fixed_high_bytes=1024 * MIB, share_low=0.04, share_high=0.14
)
"""42 rows of one GPU: context 0.6 to 0.9 GiB, and 4 to 14 % of the working memory in the cache."""
NVML_MORE_GPUS = NvmlFigures(
    fixed_low_bytes=1200 * MIB, fixed_high_bytes=3800 * MIB, share_low=0.15, share_high=0.18
)
"""47 rows of 2 and 4 GPUs: context and NCCL 1.4 to 3.6 GiB, and 17 % of the working memory."""
NVML_LOGITS_SHARE = 1.0
"""Of the logits, which the cache may keep once more: 0 to 1 of them in 53 rows whose head is not fused."""
ALLOCATED_ERROR = 0.03
"""Relative error of the planned peak that the interval allows for at both ends."""
UNCALIBRATED_ERROR = 0.2
"""The upper end's where no measurement is of this kind: Fujii et al. (arXiv 2411.06465) saw no run fail whose
estimate was below 80 % of the card."""
