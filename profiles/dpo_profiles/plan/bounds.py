"""Upper bounds for what the plan does not count yet: working memory, cache, context, host, disk.

They are wide on purpose, so that a plan said to fit does fit: all 89 published peaks of QLoRA and LoRA on 7B
and 8B models (foundation-model-stack/fms-acceleration, one to four A100) stayed below them. No component is
made up from them.
"""

from __future__ import annotations

from dpo_profiles.plan.architecture import Architecture
from dpo_profiles.plan.components import Footprint
from dpo_profiles.plan.sharding import Sharding
from dpo_profiles.plan.tensors import DTYPE_BYTES, compute_dtype
from dpo_profiles.schema import Profile

CACHE_SHARE = 0.75
CONTEXT_BYTES = 2 << 30
"""NVML's use stayed below allocated + 0.75 x (allocated - resident) + 2 GiB in the same 89 runs, which
publish all three."""
LOGIT_BYTES = 8
"""Per logit at the peak, from Llama-3-8B with the plain loss in the same runs."""
LAYER_TENSORS = 10
"""MLP-wide tensors alive in one decoder layer's backward pass."""
HIDDEN_BYTES = 34
SCORE_BYTES = 5
"""What a layer keeps without checkpointing, 16 bit: s b h (34 + 5 a s / h) bytes (arXiv 2205.05198, table 2); the
second part is the score matrix of eager attention."""
GATED_MLP_BYTES = 8
"""Gate, up, their activation and product, 16 bit each, which that formula's plain MLP does not have."""
PROCESS_BYTES = 3 << 30
"""Host memory of one training process besides weights: torch, CUDA and the data set; an assumption."""
EVENT_BYTES_PER_STEP = 4096
OPTIMIZER_CHECKPOINT_BYTES = 12
"""Per adapter parameter: float32 weight and two moments."""


def working_bytes(profile: Profile, model: Architecture, sharding: Sharding) -> int:
    """Activations, logits and gathered parameters at most, for the largest micro-batch.

    Checkpoints of each layer are counted twice: under FSDP with PEFT about one more hidden-wide tensor a
    layer was alive in the published runs.
    """
    pairs = max(profile.train.micro_batch_pairs, profile.eval.micro_batch_pairs)
    tokens = 2 * pairs * profile.data.max_length_tokens
    item = DTYPE_BYTES[compute_dtype(profile)]
    scores = 0
    if profile.model.attention == "eager":
        scores = SCORE_BYTES * model.heads * tokens * profile.data.max_length_tokens * item // 2
    if profile.train.gradient_checkpointing:
        layers = 2 * model.layers * tokens * model.hidden_size * item
    else:
        kept = HIDDEN_BYTES * model.hidden_size + GATED_MLP_BYTES * model.intermediate_size
        layers = model.layers * (tokens * kept * item // 2 + scores)
    inside = LAYER_TENSORS * tokens * model.intermediate_size * item + scores
    logits = LOGIT_BYTES * tokens * model.vocab_size
    dequantised = max(linear.weights for linear in model.linears) * item
    return layers + inside + logits + dequantised + _gathered(model, item, sharding)


def nvml_high(profile: Profile, model: Architecture, sharding: Sharding, counted: Footprint) -> int:
    """Upper end of what NVML may show, over loading and training."""
    totals = {phase: sum(parts.values()) for phase, parts in counted.phases().items()}
    training = max(total for phase, total in totals.items() if phase != "load")
    working = working_bytes(profile, model, sharding)
    arriving = 2 * model.vocab_size * model.hidden_size * DTYPE_BYTES[compute_dtype(profile)]
    peak = max(training + round((1 + CACHE_SHARE) * working), totals["load"] + arriving)
    return peak + CONTEXT_BYTES


def host_ram_bytes(profile: Profile, model: Architecture, counted: Footprint, working: int) -> int:
    """Of one host: each rank's process and the largest tensor on its way; on a CPU the model lives there too."""
    arriving = model.vocab_size * model.hidden_size * DTYPE_BYTES[compute_dtype(profile)]
    rank = PROCESS_BYTES + arriving
    if not profile.hardware.gpu:
        rank += max(sum(parts.values()) for parts in counted.phases().values()) + working
    return profile.engine.gpus_per_node * rank


def disk_bytes(profile: Profile, trainable: int) -> int:
    """Run directory: checkpoints that are kept and one being written, the final adapter, and events."""
    every, steps = profile.save.every_steps, profile.train.max_steps
    made = (steps // every if every else 0) + 1
    kept = min(made, profile.save.keep_last + 1) if profile.save.keep_last else made
    checkpoints = kept * OPTIMIZER_CHECKPOINT_BYTES * trainable
    return checkpoints + 4 * trainable + EVENT_BYTES_PER_STEP * steps


def _gathered(model: Architecture, item: int, sharding: Sharding) -> int:
    """Sharding engines gather embeddings and head, and up to two layers, in at most the arithmetic's type."""
    if not sharding.shards:
        return 0
    layer = sum(linear.weights for linear in model.linears) * item
    return model.embedding_matrices * model.vocab_size * model.hidden_size * item + 2 * layer
