"""docs/parity.md, written from the recorded result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADER = """\
# The same training from each engine

<!-- Written by `python benchmarks/parity.py --page > docs/parity.md`; change benchmarks/parity_page.py instead. -->

A job must not learn something else because another engine runs it. This page says how far losses, margins and final
adapters of the engines are apart, and what that rests on.

```
python benchmarks/parity.py              # the tables and figures below, on this machine
python benchmarks/parity.py --quick      # 8 steps, float32 only
python benchmarks/parity.py --record     # and keep them in benchmarks/results/parity.json
python benchmarks/parity.py --page > docs/parity.md
```

## What is compared

The `zero3` profile on a small model, as `dpo-daemon rehearse` makes one: 4 random Qwen2 layers of width 128 in NF4 with
double quantisation, a byte-level tokenizer, and a LoRA adapter of rank 16 on all seven kinds of linear layers. Its B is
not zero, so training starts from an adapter that already does something, as the 72B job does, and the reference is that
adapter and not the bare base. 40 of the shipped pairs, cut to 128 tokens, give 20 steps of 8 pairs: each pair is seen
four times. Dropout is 0, gradients are clipped at 1, the schedule is linear with a warm-up of two steps up to 0.001,
and layers are recomputed in the backward pass.

`single` takes a step's 8 pairs in four micro-batches. `ddp`, `deepspeed-zero3` and `fsdp2` share them between two ranks
of two micro-batches. Each run is started by the launcher and made by the trainer that users' runs have. DeepSpeed reads
the shipped `zero3.deepspeed.json`, except that the persistence threshold is 0: with its own value nothing of so small a
model but the embeddings would be sharded.

Loss and margin (`rewards/margins`) are those of the step events: means over the pairs of a step on all ranks, before
the update. A relative difference of losses is worth little where they are near zero, so the job is one whose loss
falls clearly below 0.5 and stays far above 0: the lowest of the four in any step is {loss_lowest:.3f}. Final adapters
that start from the same one are alike even if they learned unlike things: their cosine to the start is as low as
{start_cosine_min:.4f}. The table therefore also gives the cosine of what training added, final minus start, which no
common start makes larger.
"""

RESTS_ON = """\
## What the tolerance rests on

In float32 all engines do the same arithmetic on the same numbers: the NF4 codes are the same bits, which the self-test
of each run checks, and so are pairs, order and adapter. What differs is the order of sums. An all-reduce or
reduce-scatter adds two ranks' gradients that `single` adds one micro-batch after the other; ZeRO-3 adds and clips over
one flat part a rank, FSDP2 over a shard of each tensor; a thread more or less splits a matrix product otherwise. Each
rounds at about 6e-8 of a number. Adam divides a gradient by its own size, so where a gradient is nearly zero its
rounding becomes as large a part of the update as anything else; losses therefore differ by more than a sum does.

The goals are wider than what was measured here, because a GPU's kernels and NCCL's trees have orders of their own.
"""

BF16 = """\
## In bfloat16

Informative, without a goal: the two engines do not do the same arithmetic. DeepSpeed's bf16 engine computes the adapter
in bfloat16 from float32 masters, and adds up and reduces its gradients in bfloat16. Under FSDP2, and in `single`, the
adapter computes in float32 over a base in bfloat16, and so do its gradients; there is no second copy of it. A bfloat16
number has 8 bits of precision, and rounds at 0.4 %.
"""

NOT_SHOWN = """\
## What is not shown

- A GPU, NCCL, more than two ranks and more than one host. The script takes GPUs where there are two; none has been at
  hand.
- A large model. Depth and width add to the rounding, and 72B of them have not been run.
- Speed. The wall times that the script prints are those of a CPU and of loading; no engine is faster for what is said
  here.
- Dropout. Engines draw it from different random states, and two runs with it are two samples.
- FSDP1, which needs CUDA.
"""


def page(result: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    value = {name: figure["value"] for name, figure in result["figures"].items()}
    machine, versions = result["machine"], result["versions"]
    where = f"{machine['cpus']} cores ({machine['cpu']}), Python {machine['python']}"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            HEADER.format_map(value),
            f"## Measured\n\n{result['date']}, {where}; {packages}.\n",
            _figures(result["figures"]),
            "By engine, in float32; the last three columns compare with `single`:\n",
            _table(result["tables"]["float32"]),
            RESTS_ON,
            *_bf16(result["tables"], value),
            NOT_SHOWN,
        ]
    )


def _bf16(tables: Mapping[str, Any], value: Mapping[str, float]) -> list[str]:
    if "bfloat16" not in tables:
        return [BF16, "Not recorded in this run; `python benchmarks/parity.py --record` does.\n"]
    found = {name: _shown(name, value[f"{name}_bf16"]) for name in FIGURES}
    differences = (
        f"In {tables['bfloat16'][0]['steps']} steps, ZeRO-3 against FSDP2: losses within {found['loss_rel_max']}, margins "
        f"within {found['margin_abs_max']},\nadapters within a cosine of {found['adapter_cosine_min']}, and what training "
        f"added within {found['change_cosine_min']}.\n"
    )
    return [BF16, _table(tables["bfloat16"]), differences]


FIGURES = {
    "loss_rel_max": "largest difference of the losses / loss",
    "margin_abs_max": "largest difference of `rewards/margins`",
    "adapter_cosine_min": "smallest cosine of a tensor of the final adapters",
    "change_cosine_min": "the same of what training added to it",
    "loss_last": "largest last loss of the engines",
}
_ENGINES_COMPARED = {"loss_last": "all four"}


def _figures(figures: Mapping[str, Any]) -> str:
    lines = ["| figure | between | meaning | measured | goal |", "|---|---|---|---|---|"]
    for suffix, between in (("", "ZeRO-3 and FSDP2"), ("_single", "`single` and any other")):
        for name, meaning in FIGURES.items():
            figure = figures.get(name + suffix)
            if figure is None:
                continue
            least = "at least" if "cosine" in name else "at most"
            goal = "" if figure["goal"] is None else f"{least} {figure['goal']:g}"
            who = _ENGINES_COMPARED.get(name, between)
            lines.append(
                f"| `{name}{suffix}` | {who} | {meaning} | {_shown(name, figure['value'])} | {goal} |"
            )
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| engine | first loss | last loss | last margin | losses within | margins within | cosine of the change |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"`{row['engine']}`", *(f"{row[name]:.6f}" for name in _ENDS)]
        differences = [_shown(name, row[name]) for name in _DIFFERENCES]
        lines.append("| " + " | ".join(cells + differences) + " |")
    return "\n".join(lines) + "\n"


_ENDS = ("first_loss", "last_loss", "last_margin")
_DIFFERENCES = ("loss_rel_max", "margin_abs_max", "change_cosine_min")


def _shown(name: str, value: float) -> str:
    if "cosine" in name:
        return f"{value:.9f}"
    return f"{value:.2g}"
