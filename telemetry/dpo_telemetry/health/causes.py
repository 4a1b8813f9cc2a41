"""What each code is called when it is the cause, and which other codes it then explains."""

from __future__ import annotations

CONSEQUENCES: dict[str, tuple[str, ...]] = {
    "gpu_lost": ("rank_died", "gpu_error"),
    "gpu_error": ("rank_died", "nonfinite"),
    "not_sharded": ("oom", "vram_over_plan", "rank_died"),
    "vram_leak": ("oom", "vram_over_plan", "rank_died"),
    "oom": ("rank_died", "vram_over_plan"),
    "gpu_throttled": ("rank_skew",),
    "data_truncated": (
        "empty_completions", "nonfinite", "loss_not_falling", "grad_vanishing", "adapter_frozen",
    ),
    "empty_completions": (
        "nonfinite", "loss_not_falling", "adapter_frozen", "grad_vanishing", "accuracy_low", "margin_small",
        "stalled",
    ),
    "lr_zero": (
        "adapter_frozen", "loss_not_falling", "margin_small", "accuracy_low", "stalled",
    ),
    "base_corrupted": (
        "reference_mismatch", "loss_not_falling", "loss_spike", "grad_exploding", "grad_vanishing",
        "accuracy_low", "likelihood_displacement",
    ),
    "bf16_rounding": (
        "adapter_frozen", "loss_not_falling", "grad_vanishing", "margin_small", "accuracy_low", "stalled",
    ),
    "adapter_frozen": ("loss_not_falling", "grad_vanishing", "margin_small", "accuracy_low", "stalled"),
    "reference_mismatch": (
        "loss_not_falling", "loss_spike", "grad_exploding", "accuracy_low", "likelihood_displacement",
        "over_optimisation",
    ),
    "labels_swapped": (
        "accuracy_low", "loss_not_falling", "loss_spike", "overfitting", "likelihood_displacement",
    ),
    "length_bias": ("over_optimisation", "likelihood_displacement"),
    "grad_exploding": (
        "loss_spike", "loss_not_falling", "accuracy_low", "likelihood_displacement", "over_optimisation",
        "overfitting",
    ),
    "over_optimisation": ("likelihood_displacement", "overfitting", "loss_spike"),
    "overfitting": ("likelihood_displacement",),
    "grad_vanishing": ("loss_not_falling", "margin_small", "accuracy_low", "stalled"),
    "loss_spike": ("loss_not_falling", "accuracy_low", "likelihood_displacement"),
    "margin_small": ("loss_not_falling", "stalled"),
    "accuracy_low": ("loss_not_falling", "stalled"),
}  # fmt: skip
"""What each cause explains; the order is the order in which causes are tried."""

CAUSES: dict[str, str] = {
    "gpu_lost": "a GPU fell off the bus",
    "gpu_error": "a GPU reports errors",
    "not_sharded": "the base model is not sharded",
    "vram_leak": "memory grows from step to step",
    "oom": "a GPU ran out of memory",
    "gpu_throttled": "a GPU is throttled",
    "data_truncated": "completions truncated away",
    "empty_completions": "completions truncated away",
    "lr_zero": "learning rate is 0",
    "base_corrupted": "base model corrupted",
    "bf16_rounding": "log-probs rounded to bf16",
    "adapter_frozen": "adapter does not train",
    "reference_mismatch": "reference is not the starting policy",
    "labels_swapped": "chosen and rejected are swapped",
    "length_bias": "length tells the pairs apart",
    "grad_exploding": "learning rate too high",
    "over_optimisation": "optimised too far",
    "overfitting": "training set learned by heart",
    "grad_vanishing": "no gradient reaches the weights",
    "loss_spike": "training is unstable",
    "margin_small": "beta too small",
    "accuracy_low": "labels too noisy to learn from",
    "likelihood_displacement": "chosen answers lose their probability",
    "stalled": "learning has stopped",
    "loss_not_falling": "nothing is learned",
    "nonfinite": "numbers overflow",
    "adapter_empty": "adapter saved without its weights",
    "rank_died": "a rank died",
    "rank_skew": "one rank is slower than the others",
    "vram_over_plan": "more memory than planned",
    "vram_imbalance": "memory differs between GPUs",
    "disk_low": "disk is nearly full",
    "keeper_stale": "the keeper is gone",
    "telemetry_gap": "events were lost",
}
"""The most probable cause that a code stands for."""
