"""Ways in which quantised preference training goes wrong, each put into a rank once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import msgspec
import torch
from accelerate import accelerator as accelerate_accelerator
from peft import PeftModel
from torch import nn
from torch.distributed.fsdp import fully_shard

from dpo_profiles.schema import Profile
from dpo_trainer import job
from dpo_trainer.emit.callback import RunCallback
from dpo_trainer.engine import Engine, fsdp2, zero3
from dpo_trainer.model.adapter import adapter_pairs
from dpo_trainer.model.nf4 import layers_4bit
from dpo_trainer.selftest.run import SelfTest

Act = Callable[[PeftModel, Engine, Any], None]
"""Given the model, its engine and the trainer, when the engine has taken over."""


def before_the_self_test(act: Act) -> Callable[[], None]:
    """A fault that is there when the self-test begins."""

    def install() -> None:
        original = SelfTest.run

        def patched(self: SelfTest, trainer: Any, *rest: Any, **named: Any) -> None:
            with torch.no_grad():
                act(trainer.policy, self._engine, trainer)
            original(self, trainer, *rest, **named)

        SelfTest.run = patched  # type: ignore[method-assign]

    return install


def codes_altered(model: PeftModel, engine: Engine, _: Any) -> None:
    """One bit of one byte on the last rank."""
    if engine.ranks.rank == engine.ranks.world_size - 1:
        last = list(layers_4bit(model).values())[-1]
        engine.held(last.weight)[-1].reshape(-1).view(torch.uint8)[0] ^= 1


def state_lost(model: PeftModel, _: Engine, __: Any) -> None:
    """The parameter that carried it was replaced, and nobody kept it."""
    layer = list(layers_4bit(model).values())[-1]
    layer.quant_state = None
    layer.weight.quant_state = None


def layer_rounds(model: PeftModel, _: Engine, __: Any) -> None:
    """Codes and state are right, and the layer computes in another dtype."""
    layer = next(iter(layers_4bit(model).values()))
    layer.compute_dtype, layer.compute_type_is_set = torch.bfloat16, True


def reference_changed(model: PeftModel, engine: Engine, _: Any) -> None:
    _, reference = list(adapter_pairs(model).values())[-1]
    engine.held(reference)[-1].reshape(-1)[0] += 1e-3


def policy_rounded(model: PeftModel, engine: Engine, _: Any) -> None:
    """What TRL does to the trainable adapter of a quantised base."""
    for policy, _reference in adapter_pairs(model).values():
        held = engine.held(policy)[-1]
        held.copy_(held.to(torch.bfloat16))


def masters_rounded(model: PeftModel, _: Engine, __: Any) -> None:
    for policy, reference in adapter_pairs(model).values():
        policy.data, reference.data = policy.data.to(torch.bfloat16), reference.data.to(torch.bfloat16)


def weight_frozen(model: PeftModel, _: Engine, __: Any) -> None:
    list(adapter_pairs(model).values())[-1][0].requires_grad_(False)


def final_norm(model: PeftModel) -> nn.Parameter:
    weight: nn.Parameter = model.get_base_model().model.norm.weight
    return weight


def base_trainable(model: PeftModel, _: Engine, __: Any) -> None:
    final_norm(model).requires_grad_(True)


def not_a_number(model: PeftModel, engine: Engine, _: Any) -> None:
    engine.held(final_norm(model))[-1].fill_(float("nan"))


def completions_empty(_: PeftModel, __: Engine, trainer: Any) -> None:
    """What the seed's 32 tokens did to every completion."""
    original = trainer.data_collator

    def patched(rows: Any) -> Any:
        batch = original(rows)
        batch["completion_mask"].zero_()
        return batch

    trainer.data_collator = patched


def last_ranks_completions_empty(model: PeftModel, engine: Engine, trainer: Any) -> None:
    """The others have nothing to complain of, and must not wait for the one that has."""
    if engine.ranks.rank == engine.ranks.world_size - 1:
        completions_empty(model, engine, trainer)


def log_probs_rounded(_: PeftModel, __: Engine, trainer: Any) -> None:
    """What autocast does to what a model gives back."""

    def hook(_: nn.Module, __: object, output: Any) -> None:
        output.log_probs = output.log_probs.to(torch.bfloat16)

    trainer.model.register_forward_hook(hook, prepend=True)


def codes_left_whole() -> None:
    """uint8 codes under FSDP2, which accelerate leaves out."""
    original = job._read_profile

    def as_uint8(attempt: Any) -> Profile:
        profile = original(attempt)
        storage = msgspec.structs.replace(profile.quantization, storage_dtype="uint8")
        return msgspec.structs.replace(profile, quantization=storage)

    def excluding(module: Any, **options: Any) -> Any:
        modules = module if isinstance(module, list) else [module]
        held = {p for m in modules for p in m.parameters()}
        ignored = {p for p in held if p.dtype == torch.uint8}
        return fully_shard(module, ignored_params=ignored, **options)

    job._read_profile = as_uint8
    fsdp2.fully_shard = excluding  # type: ignore[attr-defined]


def nothing_is_sharded() -> None:
    """Neither while loading nor by accelerate."""

    def leave(self: Engine, module: nn.Module) -> None:
        """Leave it whole."""

    fsdp2.Fsdp2Engine.shard = fsdp2.Fsdp2Engine.shard_rest = leave  # type: ignore[method-assign,assignment]
    accelerate_accelerator.fsdp2_prepare_model = lambda accelerator, model: model


def zero_is_off() -> None:
    """A file that says stage 3, and an engine that keeps parameters whole."""

    def leave(self: Engine, module: nn.Module) -> None:
        """Leave it whole."""

    zero3.Zero3Engine.shard = leave  # type: ignore[method-assign]
    original = zero3.Zero3Engine.attach

    def attach(self: zero3.Zero3Engine, accelerator: Any) -> None:
        original(self, accelerator)
        accelerator.state.deepspeed_plugin.hf_ds_config.config["zero_optimization"]["stage"] = 2

    zero3.Zero3Engine.attach = attach  # type: ignore[method-assign]


def last_rank_is_told_to_stop() -> None:
    """SIGTERM reaches one rank only, in step 2."""
    original = RunCallback.on_optimizer_step

    def patched(self: RunCallback, args: Any, state: Any, *rest: Any, **named: Any) -> None:
        original(self, args, state, *rest, **named)
        if state.global_step + 1 == 2 and self._ranks.rank == self._ranks.world_size - 1:
            signal.raise_signal(signal.SIGTERM)

    RunCallback.on_optimizer_step = patched  # type: ignore[method-assign]


ACTS: tuple[Act, ...] = (
    codes_altered, state_lost, layer_rounds, reference_changed, policy_rounded, masters_rounded,
    weight_frozen, base_trainable, not_a_number, completions_empty,
    last_ranks_completions_empty, log_probs_rounded,
)  # fmt: skip


def layers_stay_gathered() -> None:
    """No fault: FSDP2's file says that layers are not sharded again after a forward pass."""
    fsdp2._DEFAULTS["FSDP_RESHARD_AFTER_FORWARD"] = "false"


FAULTS: dict[str, Callable[[], None]] = {act.__name__: before_the_self_test(act) for act in ACTS} | {
    install.__name__: install
    for install in (
        codes_left_whole,
        nothing_is_sharded,
        zero_is_off,
        last_rank_is_told_to_stop,
        layers_stay_gathered,
    )
}
"""By name."""
