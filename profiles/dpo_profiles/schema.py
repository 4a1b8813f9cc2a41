"""The profile: everything a run is told, one struct a TOML table.

Every field carries its unit and its meaning in `msgspec.Meta`, which is also what
`dpo-daemon profiles show` prints beside the value and what validation errors quote.
Ranges that a single field can express stand here; rules that join two fields stand in
`dpo_profiles.rules`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from dpo_profiles.health import Health
from dpo_profiles.section import Section
from dpo_profiles.section import meta as _meta

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Backend = Literal["single", "ddp", "deepspeed-zero3", "fsdp", "fsdp2"]
AlertAction = Literal["ignore", "warn", "stop"]


class Model(Section, frozen=True, kw_only=True):
    """The frozen base model."""

    base: Annotated[str, _meta("hub id or path", "Base model that the adapter is trained on", min_length=1)]
    revision: Annotated[
        str, _meta("git revision", "Commit, branch or tag on the hub; empty takes the newest")
    ] = ""
    parameters: Annotated[
        int,
        _meta("parameters", "Plan only: count of a model that has no config.json; 0 reads the config", ge=0),
    ] = 0
    compute_dtype: Annotated[
        Dtype, _meta("dtype", "Arithmetic of the base model; auto is bfloat16 on a GPU and float32 on a CPU")
    ] = "auto"
    autocast_dtype: Annotated[
        Literal["none", "bfloat16", "float16"],
        _meta(
            "dtype",
            "Type that the engine file's mixed_precision casts the forward pass to; none casts nothing",
        ),
    ] = "none"
    attention: Annotated[
        Literal["sdpa", "eager", "flash_attention_2"], _meta("kernel", "Attention implementation")
    ] = "sdpa"
    pad_token: Annotated[str, _meta("token", "Padding token; empty keeps the tokenizer's own")] = ""


class Quantization(Section, frozen=True, kw_only=True):
    """How the base model's linear layers are stored."""

    kind: Annotated[Literal["nf4", "none"], _meta("scheme", "4-bit NormalFloat, or unquantised")] = "nf4"
    double_quantization: Annotated[bool, _meta("yes/no", "Quantise the block scales (absmax) too")] = True
    storage_dtype: Annotated[
        Literal["uint8", "bfloat16", "float16", "float32"],
        _meta("dtype", "Type that holds the packed codes; FSDP shards float types only"),
    ] = "uint8"


class Adapter(Section, frozen=True, kw_only=True):
    """The LoRA adapter that is trained."""

    kind: Annotated[
        Literal["lora", "none"], _meta("method", "none trains all weights of the base; plan only")
    ] = "lora"
    path: Annotated[
        str, _meta("path or hub id", "Trained SFT adapter to start from; empty makes a new one")
    ] = ""
    r: Annotated[int, _meta("rank", "LoRA rank", ge=1)] = 16
    alpha: Annotated[float, _meta("factor", "LoRA alpha; the update is scaled by alpha / r", gt=0)] = 16.0
    dropout: Annotated[float, _meta("fraction", "Dropout on the adapter's input", ge=0, lt=1)] = 0.05
    target_modules: Annotated[
        tuple[str, ...], _meta("module names", "Linear layers that get an adapter", min_length=1)
    ] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    master_dtype: Annotated[
        Literal["float32", "bfloat16"],
        _meta("dtype", "Type of the adapter weights that the optimizer updates"),
    ] = "float32"


class Data(Section, frozen=True, kw_only=True):
    """The preference pairs."""

    name: Annotated[
        str,
        _meta(
            "shipped, hub id or path",
            "shipped, a hub data set, or a local .jsonl or .parquet file",
            min_length=1,
        ),
    ] = "shipped"
    split: Annotated[str, _meta("split name", "Split of the data set to read", min_length=1)] = "train"
    revision: Annotated[str, _meta("git revision", "Revision of a hub data set; empty takes the newest")] = ""
    max_length_tokens: Annotated[
        int, _meta("tokens", "Longest prompt plus completion; longer pairs are cut or dropped", ge=8)
    ] = 512
    over_long: Annotated[
        Literal["drop", "truncate"],
        _meta("policy", "drop leaves over-long pairs out; truncate cuts the end of their completions"),
    ] = "drop"
    train_pairs: Annotated[int, _meta("pairs", "Use at most this many training pairs; 0 uses all", ge=0)] = 0
    heldout_fraction: Annotated[
        float, _meta("fraction", "Share of the pairs held out for evaluation", ge=0, lt=1)
    ] = 0.01
    heldout_pairs: Annotated[
        int, _meta("pairs", "Number of pairs held out for evaluation; 0 goes by heldout_fraction", ge=0)
    ] = 0


class Loss(Section, frozen=True, kw_only=True):
    """The preference loss."""

    kind: Annotated[
        Literal["sigmoid", "hinge", "ipo", "robust"], _meta("loss", "Name of the loss as TRL spells it")
    ] = "sigmoid"
    beta: Annotated[
        float, _meta("factor", "Reward = beta x (policy log-prob - reference log-prob)", gt=0)
    ] = 0.1
    label_smoothing: Annotated[float, _meta("fraction", "Assumed share of swapped labels", ge=0, lt=0.5)] = (
        0.0
    )


class Train(Section, frozen=True, kw_only=True):
    """Length and batch of the training."""

    max_steps: Annotated[int, _meta("optimizer steps", "Updates to make", ge=1)] = 10
    micro_batch_pairs: Annotated[int, _meta("pairs", "Pairs per forward pass and GPU", ge=1)] = 1
    gradient_accumulation_steps: Annotated[int, _meta("micro-batches", "Forward passes per update", ge=1)] = (
        16
    )
    gradient_checkpointing: Annotated[bool, _meta("yes/no", "Recompute activations in the backward pass")] = (
        True
    )
    max_grad_norm: Annotated[
        float, _meta("norm", "Gradients are clipped to this norm; 0 never clips", ge=0)
    ] = 1.0
    seed: Annotated[
        int, _meta("seed", "Seed of split, order, dropout and new adapter weights", ge=0, le=2**32 - 1)
    ] = 1234


class Optimizer(Section, frozen=True, kw_only=True):
    """AdamW and its numbers."""

    name: Annotated[
        Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"],
        _meta("optimizer", "Name as the Hugging Face Trainer spells it"),
    ] = "adamw_torch"
    learning_rate: Annotated[float, _meta("per step", "Peak learning rate", gt=0)] = 1e-5
    beta1: Annotated[float, _meta("factor", "Decay of the first moment", ge=0, lt=1)] = 0.9
    beta2: Annotated[float, _meta("factor", "Decay of the second moment", ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, _meta("absolute", "Added to the denominator", gt=0)] = 1e-8
    weight_decay: Annotated[float, _meta("per step", "Decoupled weight decay", ge=0)] = 0.0


class Schedule(Section, frozen=True, kw_only=True):
    """The learning rate over the run."""

    kind: Annotated[
        Literal["linear", "cosine", "constant", "constant_with_warmup"],
        _meta("schedule", "Shape after the warm-up"),
    ] = "linear"
    warmup_ratio: Annotated[
        float, _meta("fraction of steps", "Share of the run that warms up", ge=0, lt=1)
    ] = 0.1


class Eval(Section, frozen=True, kw_only=True):
    """Evaluation on the held-out pairs."""

    every_steps: Annotated[
        int, _meta("optimizer steps", "Evaluate each so many steps; 0 only at the end", ge=0)
    ] = 2
    micro_batch_pairs: Annotated[int, _meta("pairs", "Pairs per forward pass and GPU", ge=1)] = 1


class Save(Section, frozen=True, kw_only=True):
    """Checkpoints."""

    every_steps: Annotated[
        int, _meta("optimizer steps", "Save each so many steps; 0 only at the end", ge=0)
    ] = 5
    keep_last: Annotated[int, _meta("checkpoints", "Older checkpoints are removed; 0 keeps all", ge=0)] = 2


class Engine(Section, frozen=True, kw_only=True):
    """Who runs the ranks, and on how many GPUs."""

    backend: Annotated[Backend, _meta("engine", "Training engine")] = "single"
    nodes: Annotated[int, _meta("hosts", "Number of hosts", ge=1)] = 1
    gpus_per_node: Annotated[int, _meta("GPUs", "Ranks on each host", ge=1)] = 1
    deepspeed_file: Annotated[
        str, _meta("path", "DeepSpeed's own JSON, passed on unchanged; relative to the profile")
    ] = ""
    accelerate_file: Annotated[
        str, _meta("path", "accelerate's own YAML, passed on unchanged; relative to the profile")
    ] = ""

    @property
    def world_size(self) -> int:
        """Number of ranks in all."""
        return self.nodes * self.gpus_per_node


class Hardware(Section, frozen=True, kw_only=True):
    """The card the plan is made for."""

    gpu: Annotated[str, _meta("name", "GPU name as shown; empty when the run is on a CPU")] = ""
    capacity_bytes: Annotated[
        int, _meta("bytes", "Memory of one GPU as NVML reports it; 0 is unknown", ge=0)
    ] = 0


class Alerts(Section, frozen=True, kw_only=True):
    """What an alert does: ignore shows and writes nothing, warn does both, stop ends the run too."""

    nonfinite: Annotated[AlertAction, _meta("action", "On a loss or gradient that is NaN or infinite")] = (
        "warn"
    )
    reference_mismatch: Annotated[
        AlertAction, _meta("action", "On a reference that is not the starting policy")
    ] = "stop"
    adapter_frozen: Annotated[AlertAction, _meta("action", "On an adapter that does not change")] = "stop"
    empty_completions: Annotated[
        AlertAction, _meta("action", "On completions of which no token reaches the loss")
    ] = "warn"
    labels_swapped: Annotated[AlertAction, _meta("action", "On accuracies that stay below one half")] = "warn"
    base_corrupted: Annotated[AlertAction, _meta("action", "On a loss far above what the loss starts at")] = (
        "warn"
    )
    bf16_rounding: Annotated[
        AlertAction, _meta("action", "On log-probs whose rounding hides the margins")
    ] = "warn"
    loss_not_falling: Annotated[AlertAction, _meta("action", "On a loss that stays where it began")] = "warn"
    loss_spike: Annotated[AlertAction, _meta("action", "On a loss that jumps and stays")] = "warn"
    grad_vanishing: Annotated[AlertAction, _meta("action", "On gradients that are next to nothing")] = "warn"
    grad_exploding: Annotated[AlertAction, _meta("action", "On gradients that grow without end")] = "warn"
    accuracy_low: Annotated[AlertAction, _meta("action", "On accuracies that stay at one half")] = "warn"
    margin_small: Annotated[AlertAction, _meta("action", "On margins that do not grow")] = "warn"
    likelihood_displacement: Annotated[
        AlertAction, _meta("action", "On chosen answers that lose their likelihood")
    ] = "warn"
    over_optimisation: Annotated[AlertAction, _meta("action", "On margins that grow beyond reason")] = "warn"
    overfitting: Annotated[
        AlertAction, _meta("action", "On an evaluation that grows worse while training improves")
    ] = "warn"
    length_bias: Annotated[AlertAction, _meta("action", "On margins that follow the length of answers")] = (
        "warn"
    )
    lr_zero: Annotated[AlertAction, _meta("action", "On a learning rate that is 0 for long")] = "warn"
    stalled: Annotated[AlertAction, _meta("action", "On a loss that stopped falling early")] = "warn"
    vram_over_plan: Annotated[AlertAction, _meta("action", "On memory above what was planned")] = "warn"
    vram_leak: Annotated[AlertAction, _meta("action", "On memory that grows from step to step")] = "warn"
    vram_imbalance: Annotated[AlertAction, _meta("action", "On ranks that peak at different heights")] = (
        "warn"
    )


class Cost(Section, frozen=True, kw_only=True):
    """What a GPU-hour costs."""

    per_gpu_hour: Annotated[
        float, _meta("currency per GPU-hour", "Price of one GPU for an hour; 0 shows none", ge=0)
    ] = 0.0
    currency: Annotated[str, _meta("ISO 4217", "Currency of the price")] = "USD"


class Profile(Section, frozen=True, kw_only=True):
    """A whole run, every default filled in."""

    name: Annotated[str, _meta("name", "Name of the profile", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    description: Annotated[str, _meta("text", "One sentence on what it is for")] = ""
    model: Model
    quantization: Quantization = Quantization()
    adapter: Adapter = Adapter()
    data: Data = Data()
    loss: Loss = Loss()
    train: Train = Train()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    eval: Eval = Eval()
    save: Save = Save()
    engine: Engine = Engine()
    hardware: Hardware = Hardware()
    alerts: Alerts = Alerts()
    health: Health = Health()
    cost: Cost = Cost()
