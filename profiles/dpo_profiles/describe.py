"""The schema as documentation: `python -m dpo_profiles.describe > docs/profiles.md`."""

from __future__ import annotations

import sys

from dpo_profiles.fields import Field, all_fields, section_descriptions, sections
from dpo_profiles.load import load_profile, shipped_names
from dpo_profiles.text import show

HEADER = """\
# Profiles

A profile is a TOML file that tells a run everything. Written by `python -m dpo_profiles.describe` from the
schema; a test holds both together.

- `dpo-daemon start --profile NAME|FILE` takes a shipped name or a path; a shipped name wins over a file of
  the same name, and `./NAME.toml` always means the file.
- `extends = "NAME or path"` takes another profile first and changes what this one says, key by key; a list
  replaces a list. A path is relative to the file that holds it.
- `--set section.key=value` changes one field. The value is TOML, and a word that is no TOML value is text:
  `--set loss.beta=0.2`, `--set engine.backend=ddp`, `--set 'adapter.target_modules=["q_proj"]'`.
- Engine files (`deepspeed_file`, `accelerate_file`) are relative to the profile that names them, and are
  passed on unchanged. One that contradicts the profile is refused with both values; what it leaves out or to
  `"auto"` contradicts nothing.
- Relative paths of models, adapters and data start at the folder in which the run is started.
- An unknown key, a wrong type, or a value out of range is one line with file, field and mend, and exit code 2.
"""

PREFLIGHT = """\
## The preflight

`dpo-daemon start` refuses what could only fail or learn nothing, before anything is made: every finding is a line
with its reason and its mend, and the exit code is 1. `--force NAME` passes one by, `--dry-run` shows all but
`backend`, and `--json` carries them as `preflight`.

| name | what it finds |
|---|---|
| `dtypes` | float16 as arithmetic or as autocast; bfloat16 autocast under fsdp2; a bfloat16 adapter at a small learning rate |
| `truncation` | a `max_length_tokens` that leaves most pairs without an answer, or drops them all |
| `world_size` | more ranks than training pairs (shipped or local data), or than layers to shard |
| `plan` | a plan that does not fit `hardware.capacity_bytes` |
| `backend` | FSDP1, which is planned only; more than one node |
| `gpus` | fewer GPUs here than a profile that names its GPU asks for |

Lengths are lower bounds (`dpo_profiles/pair_lengths.py`): no tokenizer is at hand there, and where the data is not
here either, the shipped pairs stand in for it. The trainer checks again with the real tokens.
"""

PLAN = """\
## The plan

`dpo-daemon plan` counts, for each rank, phase and component, the bytes that torch allocates: base weights with
their quantisation state, both adapters, gradients, optimizer states, and the activations of a pass with all that
comes and goes beside them. `nvml_bytes` is what NVML may show at the peak: `cache_fragmentation_bytes` and
`context_communication_bytes` come on top, each an interval. `calibrated` says whether measurements of this kind of
job and card are behind that; [plan.md](plan.md) has them, and what is fitted. `fits` compares the upper end with
`hardware.capacity_bytes`. A capacity of 0 is unknown: then `fits` is true, `headroom_bytes` is 0, and the advice
says so. `host_ram_bytes` is for one host with all its ranks, on a CPU run with the model in it; `disk_bytes` is what
the run directory grows to, without the downloaded base model.

Sizes come from the model's config.json: a local folder, else one that comes with the package (by the model's name,
whoever owns the copy), else the Hugging Face cache. Llama, Mistral, Qwen (1 to 3), Gemma (1 to 3), Phi (1 to 4),
Mixtral and Qwen's mixtures are counted; for others there is no plan. `model.parameters` plans a model of which only
the number of parameters is known, and `adapter.kind = "none"` one whose weights are all trained; neither is run.
"""


def describe() -> list[tuple[str, str, str, str, str, str]]:
    """(section, field, type, unit, default, description) of every field, in the schema's order."""
    return [
        (field.section, field.name, _type(field), field.unit, _default(field), field.description)
        for field in all_fields()
    ]


def markdown() -> str:
    """docs/profiles.md."""
    shipped = "".join(f"| `{name}` | {load_profile(name).description} |\n" for name in shipped_names())
    parts = [HEADER, "## Shipped profiles\n\n| name | what it is for |\n|---|---|\n" + shipped]
    parts.append("## Above all sections\n\n" + _table(""))
    for section in sections():
        parts.append(f"## [{section}]\n\n{section_descriptions()[section]}\n\n{_table(section)}")
    return "\n".join([*parts, PREFLIGHT, PLAN])


def _table(section: str) -> str:
    rows = "".join(
        f"| `{name}` | {kind} | {unit} | {default} | {meaning} |\n"
        for home, name, kind, unit, default, meaning in describe()
        if home == section
    )
    return "| field | value | unit | default | meaning |\n|---|---|---|---|---|\n" + rows


def _type(field: Field) -> str:
    return field.allowed.removeprefix("one of ") if field.choices else field.allowed.removeprefix("a ")


def _default(field: Field) -> str:
    if field.required:
        return "has to be given"
    if isinstance(field.default, tuple):
        return ", ".join(f"`{item}`" for item in field.default)
    if isinstance(field.default, str):
        return f"`{field.default}`" if field.default else "empty"
    return f"`{show(field.default)}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
