"""Weights into the skeleton, one layer after another, each sharded as soon as it is whole.

A rank holds its shards and one layer, whatever the number of ranks: eight ranks of a 72B never
hold eight copies of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from dpo_profiles.schema import Profile
from dpo_trainer.engine import Engine
from dpo_trainer.errors import TrainerError
from dpo_trainer.model.host import give_back
from dpo_trainer.model.nf4 import fingerprint, quantisation_state, quantise, state_tensors
from dpo_trainer.model.weights import Weights, open_weights

Progress = Callable[[int, int, str], None]
"""Called with units done, units in all, and what was loaded."""

_PROBE_TOKENS = 4


@dataclass
class Loaded:
    """What the base was when it was whole, to hold the sharded one against.

    Both are by the name of a 4-bit layer in the base model.
    """

    codes: dict[str, int] = field(default_factory=dict)
    """Fingerprints of codes and quantisation state."""
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    """Outputs of the first decoder layer's 4-bit layers for `probe`, on the CPU."""
    streamed: bool = True
    """Whether each parameter was read alone, so that the whole base was never in memory."""


def fill(model: PeftModel, folder: Path, profile: Profile, engine: Engine, progress: Progress) -> Loaded:
    """Put the weights in `folder` into a skeleton with adapters, and shard it.

    Raises:
        TrainerError: the folder holds no weights of this model, or a file is damaged.
    """
    base = model.get_base_model()
    tied = set(getattr(base, "all_tied_weights_keys", None) or ())
    places = {name: place for name, place in _places(base).items() if name not in tied}
    weights, streamed = open_weights(folder, set(places), profile, engine.compute_dtype)
    loaded = Loaded(streamed=streamed)
    layers = decoder_layers(base)
    total = len(layers) + 1
    for done, (prefix, layer) in enumerate(layers.items()):
        inside = {name: place for name, place in places.items() if name.startswith(f"{prefix}.")}
        _load(weights, inside, engine, loaded)
        if done == 0:
            loaded.outputs = probe(layer, prefix)
        engine.shard(layer)
        give_back()
        for name in inside:
            del places[name]
        progress(done + 1, total, f"layer {done + 1} of {len(layers)}")
    _load(weights, places, engine, loaded)
    base.tie_weights()
    engine.shard_rest(model)
    give_back()
    progress(total, total, "embeddings, final norm and head")
    return loaded


def decoder_layers(base: nn.Module) -> dict[str, nn.Module]:
    """The repeated blocks of a model by name, in order: the units that engines gather.

    Raises:
        TrainerError: the model does not say which they are.
    """
    classes = set(getattr(base, "_no_split_modules", None) or ())
    # FSDP2 makes a class of its own from that of each module it shards.
    found = {n: m for n, m in base.named_modules() if classes & {c.__name__ for c in type(m).__mro__}}
    if not found:
        raise TrainerError(
            f"model.base: {type(base).__name__} does not name its decoder layers; take another"
        )
    return found


def probe(layer: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Outputs [4, out] of a layer's 4-bit layers for fixed inputs, on the CPU, by name."""
    outputs = {}
    generator = torch.Generator().manual_seed(0)
    for name, module in layer.named_modules(prefix=prefix):
        if isinstance(module, Linear4bit):
            rows = torch.randn(_PROBE_TOKENS, module.in_features, generator=generator)
            with torch.no_grad():
                output = module(rows.to(module.weight.device, module.compute_dtype))
            outputs[base_name(name)] = output.float().cpu()
    return outputs


def layer_fingerprint(codes: torch.Tensor, layer: Linear4bit) -> int:
    """Fingerprint of a layer's codes and of its quantisation state; 0 when the state is lost."""
    state = quantisation_state(layer)
    if state is None:
        return 0
    return fingerprint(codes) + sum(fingerprint(tensor) for tensor in state_tensors(state))


def _load(weights: Weights, places: dict[str, tuple[nn.Module, str]], engine: Engine, loaded: Loaded) -> None:
    for name, value in weights.take(places):
        module, last = places[name]
        _require_shape(name, value, getattr(module, last))
        value = value.to(engine.device)
        if isinstance(module, Linear4bit) and last == "weight":
            module.weight = quantise(value, module.weight)
            module.quant_state = module.weight.quant_state
            loaded.codes[name.removesuffix(".weight")] = layer_fingerprint(module.weight.data, module)
        elif last in module._buffers:
            setattr(module, last, value)
        else:
            setattr(module, last, nn.Parameter(value, requires_grad=False))
        del value
        give_back()


def _require_shape(name: str, value: torch.Tensor, hollow: torch.Tensor) -> None:
    if value.shape != hollow.shape:
        raise TrainerError(
            f"model.base: {name} is {list(value.shape)} in its file and {list(hollow.shape)} by config.json; fetch "
            "the model again"
        )


def _places(base: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Module and attribute of each weight by its name in the model's files."""
    found = {}
    for path, module in base.named_modules():
        if ".lora_" in path:
            continue
        for name in _own_names(module):
            found[base_name(f"{path}.{name}" if path else name)] = (module, name)
    return found


def _own_names(module: nn.Module) -> Iterable[str]:
    if isinstance(module, BaseTunerLayer):
        return
    yield from (name for name, _ in module.named_parameters(recurse=False))
    yield from (name for name, _ in module.named_buffers(recurse=False) if name not in _fleeting(module))


def _fleeting(module: nn.Module) -> set[str]:
    return module._non_persistent_buffers_set


def base_name(name: str) -> str:
    """A name without what PEFT puts between a layer and its weights."""
    return name.replace(".base_layer", "")
