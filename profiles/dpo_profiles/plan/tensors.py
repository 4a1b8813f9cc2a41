"""The parameters that a run stores: the base model's and one adapter's."""

from __future__ import annotations

from dpo_profiles.errors import ProfileError
from dpo_profiles.plan.architecture import Architecture
from dpo_profiles.plan.nf4 import code_bytes, state_bytes
from dpo_profiles.plan.sharding import Parameter
from dpo_profiles.schema import Profile

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "uint8": 1}


def compute_dtype(profile: Profile) -> str:
    """The arithmetic's type: "auto" is bfloat16 where the profile names a GPU and float32 where not."""
    if profile.model.compute_dtype != "auto":
        return profile.model.compute_dtype
    return "bfloat16" if profile.hardware.gpu else "float32"


def base_parameters(profile: Profile, model: Architecture) -> list[Parameter]:
    """Everything of the base that an engine sees as a parameter.

    Embeddings, head, norms and biases stay in the arithmetic's type; bitsandbytes quantises the linear
    layers, transformers leaves the head out by default.
    """
    item, layers = DTYPE_BYTES[compute_dtype(profile)], model.layers
    parameters = [
        Parameter(model.vocab_size, model.hidden_size, item, model.embedding_matrices),
        Parameter(model.hidden_size, 1, item, layers * model.norms_per_layer + 1),
    ]
    for linear in model.linears:
        if linear.bias:
            parameters.append(Parameter(linear.out_features, 1, item, layers))
        if profile.quantization.kind == "none":
            parameters.append(Parameter(linear.out_features, linear.in_features, item, layers))
        else:
            stored = DTYPE_BYTES[profile.quantization.storage_dtype]
            # Packed codes are one column of the storage type.
            parameters.append(Parameter(-(-code_bytes(linear.weights) // stored), 1, stored, layers))
    return parameters


def quantization_state_bytes(profile: Profile, model: Architecture) -> int:
    """Scales and tables of all quantised layers, whole on every rank."""
    if profile.quantization.kind == "none":
        return 0
    nested = profile.quantization.double_quantization
    return model.layers * sum(state_bytes(linear.weights, nested) for linear in model.linears)


def adapter_parameters(profile: Profile, model: Architecture, item_bytes: int) -> list[Parameter]:
    """One LoRA adapter: A is [r, in_features] and B is [out_features, r] for each target (arXiv 2106.09685).

    Raises:
        ProfileError: a target that the model does not have.
    """
    linears = {linear.name: linear for linear in model.linears}
    parameters: list[Parameter] = []
    for target in profile.adapter.target_modules:
        linear = linears.get(target)
        if linear is None:
            raise ProfileError(
                f"{profile.name}: adapter.target_modules: {model.name} has no layer {target!r}; "
                f"it has {', '.join(linears)}"
            )
        parameters.append(Parameter(profile.adapter.r, linear.in_features, item_bytes, model.layers))
        parameters.append(Parameter(linear.out_features, profile.adapter.r, item_bytes, model.layers))
    return parameters
