"""docs/plan.md, from what was recorded."""

from __future__ import annotations

from typing import Any

from dpo_profiles.plan import calibration

HEAD = """\
# The memory plan

`dpo-daemon plan` counts what a run takes on each GPU, by component and phase, from the profile and the model's
config.json alone. This page says where the figures come from and how far they hold. It is written by
`python benchmarks/plan_points.py --page`.

## What is counted
| component | parts | from |
|---|---|---|
| policy_weights | `codes` (NF4) or `linears`, `absmax`, `unquantized` (embeddings, head, norms, biases), `persistent` (small parameters that ZeRO-3 keeps whole) | arithmetic; `absmax` is whole on every rank, because it is no parameter |
| reference_weights | 0 with adapters: the reference is a frozen copy of the adapter, and stands under `adapters` | arithmetic |
| adapters | policy and reference, sharded, whole while loading | arithmetic |
| gradients | of one adapter; at ZeRO-3's update also in float32 | arithmetic |
| optimizer_states | AdamW's two moments in 32, 16 or 8 bit, and DeepSpeed's float32 masters | arithmetic |
| activations | all below; the measured component is peak allocated minus resident | |
| | `checkpoints`: each layer's input, or without checkpointing all that its backward pass needs | arithmetic |
| | `layer`: one layer's working set; in the forward pass, the last layer's output and its norm | MLP counted in torch's operators, the rest fitted |
| | `retained`: under FSDP1 one hidden row for each layer whose backward pass is over | fitted |
| | `logits`: 14 bytes each with torch's own loss, 8 or 10 with a fused one, a tile where the head is fused | fitted |
| | `gathered_weights`: FSDP1's root and a layer, FSDP2's head and two layers, ZeRO-3's `max_live` stored elements and the head | sources; FSDP1 measured |
| | `buckets`: ZeRO-3's contiguous gradients, DDP's copy | sources |
| | `workspace`: cuBLAS | measured on A100 |
| | `arriving`, `whole_layer`, `whole_base`: while loading | sources |
| cache_fragmentation | what the allocator keeps above the peak; an interval | fitted |
| context_communication | CUDA context and NCCL; an interval | fitted |

The first six are allocated by torch and add up in each phase: load, reference, forward, backward, step, eval and
save. The last two lie between torch's peak and what NVML shows, and are in no phase; in `components` stand their
upper ends. `parts` in the JSON has each part by phase.

## When it is calibrated
`calibrated` is true for adapters on packed single sequences, with checkpointing, on one A100 or under FSDP1 on
several, since that is what the published measurements are of. It is false for all else: DPO, ZeRO-3, FSDP2, H100,
offloading. There `nvml_bytes.high` leaves a fifth of the peak.

## Against published measurements
"""
MEASURED = """\
Rows of foundation-model-stack/fms-acceleration, AnswerDotAI/fsdp_qlora and QwenLM/Qwen, on {date}:

| figure | value | goal |
|---|---|---|
{figures}

Percent, and GiB for the width: mean error of resident bytes, mean and largest error of torch's peak allocated,
rows that NVML's interval contains, and its median width.

### Each model planned from the others
The rows of a layer and the bytes of a logit are fitted anew on all other models, for each set of kernels that
they were measured with; a set that only the left-out model has is taken as shipped.

"""
CONSTANTS = """
## What was fitted
All constants stand in `profiles/dpo_profiles/plan/calibration.py`, each with its unit and the rows that it comes
from. A row is hidden_size elements of the arithmetic's type for each token.

| kernels | rows of a layer | more on an unquantised base | bytes of a logit | rows at the loss |
|---|---|---|---|---|
"""
TAIL = """
## What is not known
- The first table is of the rows that the figures were fitted on. The second refits two figures for each set of
  kernels; what FSDP1 retains, rows on an unquantised base, and NVML's terms are the same in both.
- Under FSDP1 one hidden row a layer stays until the backward pass ends. All 2 and 4 GPU rows show it, 30 rows for
  32 layers; which part of FSDP keeps it is not known, so the layers of a larger model may keep more or less.
- Mistral-7B's layer keeps 1.5 rows more than Llama-3-8B's with the later kernels and the same shapes: as many as
  queries, keys and values together. The shipped figure lies between them.
- No measurement is of a model above 8B, of experts, or of two rows a sample. Experts are counted by their source.
- Kernels of the two reference files differ; a row of another origin is planned with the later ones.
"""


def page(result: dict[str, Any]) -> str:
    """The whole page from a recorded result, `--leave-one-out` included."""
    figures = result["figures"]
    goals = [f"| {name} | {figure['value']:g} | {figure['goal']:g} |" for name, figure in figures.items()]
    measured = MEASURED.format(date=result["date"], figures="\n".join(goals))
    return HEAD + measured + _table(result["tables"]["leave_one_out"]) + _constants() + TAIL


def _table(rows: list[dict[str, Any]]) -> str:
    head = " | ".join(name.replace("_", " ") for name in rows[0])
    lines = [f"| {head} |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _constants() -> str:
    rows = [
        f"| {kernels} | {found.layer_rows:g} | {found.unquantized_rows:g} | {found.logit_bytes:g} "
        f"| {found.head_rows:g} |"
        for kernels, found in calibration.KERNELS.items()
    ]
    return CONSTANTS + "\n".join(rows) + "\n"
