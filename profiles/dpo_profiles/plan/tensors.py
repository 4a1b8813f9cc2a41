"""The parameters that a run stores: the base model's and one adapter's."""

from __future__ import annotations

from dpo_profiles.errors import ProfileError
from dpo_profiles.plan.nf4 import code_bytes, state_bytes
from dpo_profiles.plan.sharding import Parameter
from dpo_profiles.plan.workload import Workload


def unquantized_parameters(workload: Workload) -> list[Parameter]:
    """Embeddings, head, norms, biases, and on a quantised base experts: what stays in the arithmetic's type.

    bitsandbytes quantises the linear layers, transformers leaves the head out by default.
    """
    model, item = workload.model, workload.compute_bytes
    parameters = [Parameter(model.vocab_size, model.hidden_size, item, model.embedding_matrices)]
    parameters += [Parameter(vector.elements, 1, item, vector.count) for vector in model.vectors]
    if model.head_bias:
        parameters.append(Parameter(model.vocab_size, 1, item))
    biased = (linear for linear in model.linears if linear.bias)
    parameters += [Parameter(linear.out_features, 1, item, linear.count) for linear in biased]
    return parameters + (plain_parameters(workload) if workload.quantized else [])


def plain_parameters(workload: Workload) -> list[Parameter]:
    """Experts and routers that are no layers of their own; each expert counted for itself."""
    item = workload.compute_bytes
    return [Parameter(p.out_features, p.in_features, item, p.count) for p in workload.model.plain]


def linear_parameters(workload: Workload) -> list[Parameter]:
    """Weights of the linear layers as they are stored; packed codes are one column of the storage type."""
    stored, item = workload.storage_bytes, workload.compute_bytes
    if workload.quantized:
        return [
            Parameter(-(-code_bytes(linear.weights) // stored), 1, stored, linear.count)
            for linear in workload.model.layered
        ]
    return [
        Parameter(linear.out_features, linear.in_features, item, linear.count)
        for linear in workload.model.linears
    ]


def quantization_state_bytes(workload: Workload) -> int:
    """Scales and tables of all quantised layers, whole on every rank."""
    if not workload.quantized:
        return 0
    nested = workload.double_quantization
    return sum(linear.count * state_bytes(linear.weights, nested) for linear in workload.model.layered)


def adapter_parameters(workload: Workload) -> list[Parameter]:
    """One LoRA adapter: A is [r, in_features] and B is [out_features, r] for each target (arXiv 2106.09685).

    Raises:
        ProfileError: a target that the model does not have.
    """
    parameters: list[Parameter] = []
    for target in workload.targets:
        found = workload.model.targets(target)
        if not found:
            raise ProfileError(
                f"{workload.name}: adapter.target_modules: {workload.model.name} has no layer {target!r}; "
                f"it has {', '.join(linear.name for linear in workload.model.layered)}"
            )
        for linear in found:
            item = workload.adapter_bytes
            parameters.append(Parameter(workload.r, linear.in_features, item, linear.count))
            parameters.append(Parameter(linear.out_features, workload.r, item, linear.count))
    return parameters


def trained_parameters(workload: Workload) -> list[Parameter]:
    """What the optimizer updates: one adapter's parameters, or all of the base's.

    Raises:
        ProfileError: a target that the model does not have.
    """
    if workload.full:
        return [*linear_parameters(workload), *unquantized_parameters(workload)]
    return adapter_parameters(workload)


def trainable_parameters(workload: Workload) -> int:
    """Number of parameters that the optimizer updates."""
    return sum(parameter.elements * parameter.count for parameter in trained_parameters(workload))


def layer_bytes(workload: Workload) -> int:
    """One decoder layer as it is gathered: linear layers and experts, as stored; small parameters are left out."""
    if not workload.model.layers:
        return 0
    held = linear_parameters(workload) + (plain_parameters(workload) if workload.quantized else [])
    return -(-sum(p.total_bytes for p in held) // workload.model.layers)


def largest_weight(workload: Workload) -> int:
    """Elements of the largest linear layer, or of all experts' gates and first products, which are one tensor."""
    model = workload.model
    layered = max(linear.weights for linear in model.layered)
    return max([layered, *(2 * linear.copies * linear.weights for linear in model.plain)])


def embedding_bytes(workload: Workload) -> int:
    """Embedding and untied head, whole."""
    return workload.model.embedding_parameters * workload.compute_bytes
