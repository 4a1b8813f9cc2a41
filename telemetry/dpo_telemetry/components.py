"""Names of memory components, the same in the plan and in what is measured.

Weights, adapters, gradients and optimizer states are the storage bytes of the real tensors.
Activations are peak allocated minus resident, cache and fragmentation are reserved minus
allocated, context and communication are NVML's bytes of our processes minus reserved.
"""

from __future__ import annotations

POLICY_WEIGHTS = "policy_weights"
REFERENCE_WEIGHTS = "reference_weights"
ADAPTERS = "adapters"
GRADIENTS = "gradients"
OPTIMIZER_STATES = "optimizer_states"
ACTIVATIONS = "activations"
CACHE_FRAGMENTATION = "cache_fragmentation"
CONTEXT_COMMUNICATION = "context_communication"

ALL: tuple[str, ...] = (
    POLICY_WEIGHTS,
    REFERENCE_WEIGHTS,
    ADAPTERS,
    GRADIENTS,
    OPTIMIZER_STATES,
    ACTIVATIONS,
    CACHE_FRAGMENTATION,
    CONTEXT_COMMUNICATION,
)
"""Every component, in the order in which bars stack them."""
