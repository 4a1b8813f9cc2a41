"""docs/plan.md, from what was recorded."""

from __future__ import annotations

from typing import Any

from dpo_profiles.plan import calibration

HEAD = """\
# The memory plan

`dpo-daemon plan` counts what a run takes on each GPU, by component and phase, from the profile and the model's
config.json alone. This page says where the figures come from and how far they hold. It is written by
`python benchmarks/plan_points.py --page`.

## Asking
```
dpo-daemon plan --profile zero3                          # a bar a GPU, phases, headroom
dpo-daemon plan --profile zero3 --json                   # the same for programs, with each part by phase
dpo-daemon plan --profile zero3 --explain activations    # each part with its formula, its numbers and their source
dpo-daemon plan --profile single --gpu "RTX 4090"        # another card; `--gpu here` asks this machine's driver
dpo-daemon plan --profile zero3 --gpu "A100 40GB" --fit  # settings that fit, cheapest first, and what the next step up costs
dpo-daemon plan RUN                                      # what a run's ranks measured beside its plan
```
The exit code is 1 where it does not fit, and the last lines say what would. `--fit` searches micro-batch, sequence
length, checkpointing, offloading, resharding, engine and GPUs, keeps the pairs of an update, and ranks by work for a
token: it states its cost model, and calls nothing fastest, since it measures nothing. Offloading and resharding are
settings of the engine's own file, so a choice names one of the shipped files (`zero3-auto`, `zero3-offload`,
`fsdp2-keep`, `fsdp2-offload`).

## What is counted
| component | parts | from |
|---|---|---|
| policy_weights | `codes` (NF4) or `linears`, `absmax`, `unquantized` (embeddings, head, norms, biases, and experts, which transformers 5 makes parameters and no layers), `persistent` (small parameters that ZeRO-3 keeps whole) | arithmetic; `absmax` is whole on every rank, because it is no parameter |
| reference_weights | 0 with adapters: the reference is a frozen copy of the adapter, and stands under `adapters` | arithmetic |
| adapters | policy and reference, sharded, whole while loading | arithmetic |
| gradients | of one adapter; at ZeRO-3's update also in float32 | arithmetic |
| optimizer_states | AdamW's two moments in 32, 16 or 8 bit, and DeepSpeed's float32 masters | arithmetic |
| activations | all below; the measured component is peak allocated minus resident | |
| | `checkpoints`: each layer's input, or without checkpointing all that its backward pass needs | arithmetic |
| | `layer`: one layer's working set at its peak | for profiles counted tensor by tensor in torch's operators (`plan/layer.py`); for published rows fitted |
| | `retained`: under FSDP1 one hidden row for each layer whose backward pass is over | fitted |
| | `logits`: a tile of TRL's fused head; for published rows 8 to 14 bytes each | counted; fitted |
| | `gathered_weights`: FSDP1's root and a layer, FSDP2's head and two layers or all that it does not reshard, ZeRO-3's `max_live` stored elements and the head | sources; FSDP1 measured |
| | `buckets`: ZeRO-3's contiguous gradients, DDP's copy | sources |
| | `update`: roots of all second moments, which torch's AdamW takes at once | counted |
| | `workspace`: cuBLAS | measured on A100 |
| | `arriving`, `whole_layer`, `whole_base`: while loading | sources |
| cache_fragmentation | what the allocator keeps above the peak; an interval | fitted |
| context_communication | CUDA context and NCCL; an interval | fitted |

The first six are allocated by torch and add up in each phase: load, reference, forward, backward, step, eval and
save. The last two lie between torch's peak and what NVML shows, and are in no phase; in `components` stand their
upper ends. `parts` in the JSON has each part by phase. `host_ram_bytes` is of one host: each rank's process, the
largest tensor on its way, and what is offloaded; `disk_bytes` are the checkpoints, the adapter and the events.

## Held against a run
The keeper publishes plan, measurement and difference of each rank while it runs ([protocol](protocol.md), `budget`),
the monitor draws the plan's mark over each rank's bar, and an alert `vram_over_plan` names what exceeds it.
Weights, adapters, gradients and optimizer states are the storage bytes of the real tensors, activations peak
allocated minus resident, cache and fragmentation reserved minus allocated at the peak (later the activations lie in it), context and communication NVML's bytes
of the rank's process minus reserved. Like is held against like: a peak of the load phase against the load phase's plan.

## Checked without a GPU
| what | how | bound |
|---|---|---|
| weights, adapters, gradients, optimizer states | real ranks under ZeRO-3 and FSDP2 on a CPU, with padding, persistent parameters and float32 masters (`tests/trainer/distributed/test_plan.py`) | 1 % |
| peaks of reference, forward, backward and step | PyTorch's MemTracker in fake mode over our own trainer's step with NF4, eight shapes (`tests/trainer/test_planned_activations.py`) | 5 % |
| what is quantised and adapted of a mixture | the trainer's own model (`tests/trainer/test_planned_experts.py`) | exact |

Fake tensors are on a fake CPU with CUDA's behaviour put in place, since a torch without CUDA cannot run autograd on
fake CUDA tensors. What a kernel allocates inside itself is invisible to the tracker and not counted.
`python benchmarks/plan_accuracy.py` makes the same comparison with runs on whatever NVIDIA GPUs are there.

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
- No measurement is of a model above 8B, of experts, or of two rows a sample. Experts' activations are counted as one
  MLP of the width that a token goes through.
- FSDP2 with offloading is planned by its source alone: torch pins that memory, which needs a GPU.
- Of 8-bit optimizers, only what stands is counted, and nothing of their update.
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
