"""Whether a trained adapter is the one that a profile and its base speak of, before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from dpo_profiles.schema import Adapter
from dpo_trainer.errors import Refused, TrainerError, first_line
from dpo_trainer.model.adapter_files import read_config, read_shapes

Shape = tuple[int, ...]

_PREFIX = "base_model.model."
_HALVES = (".lora_A.weight", ".lora_B.weight")

_FOREIGN_OPTIONS = (
    "use_dora", "use_rslora", "use_qalora", "use_bdlora", "rank_pattern", "alpha_pattern", "modules_to_save",
    "lora_bias", "layers_to_transform", "exclude_modules", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config",
    "monteclora_config", "megatron_config",
)  # fmt: skip
"""Options of PEFT's LoRA that change what the adapter computes or which weights it has, and that a
profile cannot say."""

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways of making a new adapter that take a part of the base's weights away."""


def check_adapter(folder: Path, adapter: Adapter, config: PretrainedConfig, base_name: str) -> None:
    """Refuse an adapter that is not what the profile says or was made for another base.

    The base's layers come from a model without storage, the adapter's tensors from its file's header:
    every lora_A is [r, inputs] and every lora_B [outputs, r] of its layer. The recorded name of the
    base is not held against it, because people move and rename models.

    Args:
        folder: holds the adapter's files, see `adapter_files.find_adapter`.
        config: the base's.
        base_name: the base as the profile names it, for the error's line.

    Raises:
        Refused: the adapter can be read and does not match.
        TrainerError: a file of the adapter is absent or damaged, or the base's config is of no causal
            language model.
    """
    recorded = read_config(folder)
    shapes = read_shapes(folder)
    _require_plain_lora(recorded, adapter)
    _require_numbers(recorded, adapter)
    layers = _linear_layers(config, base_name)
    _require_targets(recorded, shapes, adapter, layers)
    made_for = recorded.get("base_model_name_or_path") or "an unnamed base"
    _require_shapes(shapes, adapter, layers, f"{base_name}; it was trained on {made_for}")


def _require_plain_lora(recorded: Mapping[str, Any], adapter: Adapter) -> None:
    where = f"adapter.path: {adapter.path}"
    kind = recorded.get("peft_type")
    if kind != "LORA":
        raise Refused(f"{where}: is a {kind} adapter; give a LoRA adapter")
    task = recorded.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise Refused(f"{where}: was trained for {task}; give an adapter of a causal language model")
    foreign = [name for name in _FOREIGN_OPTIONS if recorded.get(name)]
    if recorded.get("bias", "none") != "none":
        foreign.append("bias")
    if foreign:
        told = ", ".join(f"{name} = {recorded[name]}" for name in foreign)
        raise Refused(f"{where}: has {told}, which a profile cannot say; give a plain LoRA adapter")
    begun = str(recorded.get("init_lora_weights", True)).lower()
    if begun.startswith(_CHANGES_BASE):
        raise Refused(
            f"{where}: has init_lora_weights = {begun}, which changes the base's weights too; "
            "convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion"
        )


def _require_numbers(recorded: Mapping[str, Any], adapter: Adapter) -> None:
    for field, key, wanted in (("r", "r", adapter.r), ("alpha", "lora_alpha", adapter.alpha)):
        if recorded.get(key) != wanted:
            raise _unlike(field, wanted, recorded.get(key), adapter)


def _unlike(field: str, wanted: object, found: object, adapter: Adapter) -> Refused:
    return Refused(
        f"adapter.{field}: the profile says {wanted}, the adapter in {adapter.path} has {found}; "
        "set it to the adapter's"
    )


def _linear_layers(config: PretrainedConfig, base_name: str) -> dict[str, Shape]:
    """[outputs, inputs] of each linear layer of the base by its name."""
    try:
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, ImportError) as error:
        raise TrainerError(
            f"model.base: {base_name}: is no causal language model that can be built: {first_line(error)}"
        ) from error
    found: dict[str, Shape] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = tuple(module.weight.shape)
        elif isinstance(module, Conv1D):
            found[name] = tuple(reversed(module.weight.shape))
    return found


def _require_targets(
    recorded: Mapping[str, Any], shapes: Mapping[str, Shape], adapter: Adapter, layers: Mapping[str, Shape]
) -> None:
    """Names are compared as the layers that they hit; a pattern in the adapter is what it has hit."""
    wanted = sorted(adapter.target_modules)
    listed = recorded.get("target_modules")
    if isinstance(listed, list):
        found = sorted(map(str, listed))
        same = found == wanted or _hit(layers, found) == _hit(layers, wanted)
    else:
        found = sorted({name.removesuffix(half).rpartition(".")[2] for name in shapes for half in _HALVES
                        if name.endswith(half)})  # fmt: skip
        same = set(found) == {name.rpartition(".")[2] for name in wanted}
    if not same:
        raise _unlike("target_modules", wanted, found, adapter)


def _hit(layers: Mapping[str, Shape], targets: list[str]) -> set[str]:
    """Layers that PEFT would put an adapter on: a target is a whole name, or the end of one."""
    ends = tuple(f".{target}" for target in targets)
    return {name for name in layers if name in targets or name.endswith(ends)}


def _require_shapes(
    shapes: Mapping[str, Shape], adapter: Adapter, layers: Mapping[str, Shape], base: str
) -> None:
    hit = _hit(layers, list(adapter.target_modules))
    if not hit:
        names = ", ".join(adapter.target_modules)
        raise Refused(f"adapter.target_modules: {names}: the base model has no linear layers of these names")
    expected: dict[str, Shape] = {}
    for name in hit:
        outputs, inputs = layers[name]
        for half, shape in zip(_HALVES, ((adapter.r, inputs), (outputs, adapter.r)), strict=True):
            expected[f"{_PREFIX}{name}{half}"] = shape
    where = f"adapter.path: {adapter.path}"
    foreign = sorted(name for name in shapes if not name.startswith(_PREFIX) or not name.endswith(_HALVES))
    if foreign:
        raise Refused(
            f"{where}: holds {foreign[0]}, which is no part of a LoRA layer; give a plain LoRA adapter"
        )
    lacking, extra = expected.keys() - shapes.keys(), shapes.keys() - expected.keys()
    if lacking:
        raise Refused(
            f"{where}: lacks {len(lacking)} of {len(expected)} tensors, the first is {_first(lacking)}, for the "
            f"layers of {base}; give an adapter of this base"
        )
    if extra:
        raise Refused(
            f"{where}: has {len(extra)} tensors for layers that the base has not, the first is {_first(extra)}; "
            f"the base is {base}; give an adapter of this base"
        )
    for name in sorted(expected, key=_natural):
        if shapes[name] != expected[name]:
            raise Refused(
                f"{where}: {name} is {list(shapes[name])}, and must be {list(expected[name])} for {base}; "
                "give an adapter of this base"
            )


def _first(names: set[str]) -> str:
    return min(names, key=_natural)


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Layer 2 comes before layer 10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in name.split("."))
