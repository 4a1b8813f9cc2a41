"""The frozen base: sharded as planned, and the same numbers as before it was sharded."""

from __future__ import annotations

from peft import PeftModel
from torch import nn

from dpo_trainer.engine import Engine
from dpo_trainer.model.fill import Loaded, base_name, decoder_layers, layer_fingerprint, probe
from dpo_trainer.model.nf4 import layers_4bit, quantisation_state, state_tensors
from dpo_trainer.selftest.finding import Finding

PLAN_TOLERANCE = 0.05
"""Of the planned bytes: engines pad shards, and a plan of a new architecture may miss a small tensor."""


def sharding(model: PeftModel, engine: Engine, planned_bytes: int | None) -> Finding:
    """Every large base parameter is in parts, and a rank's bytes are what the plan says.

    accelerate falls back to DDP on a CPU, and leaves uint8 codes whole under FSDP2, without a word.

    Args:
        planned_bytes: the base's weights on this rank by the plan, None where there is no plan.
    """
    check = "sharding"
    if not engine.shards:
        return Finding(check, f"every rank holds the whole base, as engine.backend {_backend(engine)} does")
    base = {name: p for name, p in model.named_parameters() if ".lora_" not in name}
    whole = [name for name, parameter in base.items() if not engine.is_sharded(parameter)]
    if whole:
        return Finding(
            check,
            f"{len(whole)} of {len(base)} base parameters are whole on this rank, the first is {whole[0]}",
            "not_sharded",
            "Under FSDP set quantization.storage_dtype to the compute dtype; see that the launcher started "
            "the engine that the profile names.",
        )
    held = sum(engine.held_bytes(parameter) for parameter in base.values())
    states = sum(
        tensor.nbytes
        for layer in layers_4bit(model).values()
        for tensor in state_tensors(quantisation_state(layer))
    )
    total = sum(_whole_bytes(parameter) for parameter in base.values())
    share = f"{held:,} of {total:,} bytes of the base's parameters are on this rank"
    if (
        planned_bytes is not None
        and not engine.offloads
        and held + states > planned_bytes * (1 + PLAN_TOLERANCE)
    ):
        return Finding(
            check,
            f"{share}, with {states:,} of quantisation states, and the plan says {planned_bytes:,}",
            "not_sharded",
            "Look for parameters that the engine keeps gathered, such as a ZeRO-3 persistence threshold.",
        )
    return Finding(check, f"{len(base)} of {len(base)} base parameters are in parts; {share}")


def codes(model: PeftModel, engine: Engine, loaded: Loaded) -> Finding:
    """4-bit codes and quantisation states, gathered again, are those that were loaded."""
    layers = layers_4bit(model.get_base_model())
    wrong = []
    for name, layer in layers.items():
        if layer_fingerprint(engine.whole(layer.weight), layer) != loaded.codes[base_name(name)]:
            wrong.append(name)
    if wrong:
        return Finding(
            "codes",
            f"{len(wrong)} of {len(layers)} 4-bit layers do not hold what was loaded, the first is {wrong[0]}",
            "base_corrupted",
            "The engine altered or lost the quantised base: try another quantization.storage_dtype, and "
            "report it with the versions in the run's start event.",
        )
    return Finding("codes", f"codes and quantisation states of {len(layers)} 4-bit layers are as loaded")


def outputs(model: PeftModel, engine: Engine, loaded: Loaded) -> Finding:
    """The first decoder layer's 4-bit layers give what they gave before they were sharded, bit for bit."""
    prefix, layer = next(iter(decoder_layers(model.get_base_model()).items()))
    with engine.gathered(layer):
        now = probe(layer, prefix)
    worst = max((float((now[n] - before).abs().max()) for n, before in loaded.outputs.items()), default=0.0)
    if worst != 0:
        return Finding(
            "outputs",
            f"a layer of {prefix} gives other numbers than before it was sharded, off by up to {worst:.3g}",
            "base_corrupted",
            "The quantisation state was lost or the codes were altered; see `codes`.",
        )
    return Finding("outputs", f"{len(now)} layers of {prefix} give the same numbers as before sharding")


def _whole_bytes(parameter: nn.Parameter) -> int:
    elements = getattr(parameter, "ds_numel", None) or parameter.numel()
    return int(elements) * parameter.element_size()


def _backend(engine: Engine) -> str:
    return engine.profile.engine.backend
