"""Layouts of the decoder families that are counted, each as its class in transformers builds it.

Qwen (1) is counted as `modeling_qwen.py` on the hub builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dpo_profiles.plan.architecture import Architecture, Linear, Vectors
from dpo_profiles.plan.config import ModelConfig

_TIED = ("gemma", "gemma2", "gemma3_text")
"""Families whose head is the embedding unless the config says otherwise."""
_HEAD_WIDTHS = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128}
"""Width of a head where the config names none; all others take an even part of the hidden size."""


def architecture_of(name: str, config: ModelConfig) -> Architecture:
    """The tensors of a config whose `model_type` is one of `FAMILIES`."""
    linears, vectors = FAMILIES[config.model_type](config)
    width = _head_width(config)
    tied = config.model_type in _TIED if config.tie_word_embeddings is None else config.tie_word_embeddings
    return Architecture(
        name=name,
        hidden_size=config.hidden_size,
        intermediate_size=_inner_width(config),
        query_size=config.num_attention_heads * width,
        key_value_size=config.key_value_heads * width,
        vocab_size=config.vocab_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        linears=tuple(linears),
        vectors=tuple(vectors),
        tied=tied,
        head_bias=config.model_type == "phi",
        experts_per_token=_experts_per_token(config),
        gated=config.model_type != "phi",
    )


_Layout = tuple[Iterator[Linear], Iterator[Vectors]]


def _head_width(config: ModelConfig) -> int:
    said = config.head_dim or config.kv_channels or _HEAD_WIDTHS.get(config.model_type)
    return said or config.head_width


def _inner_width(config: ModelConfig) -> int:
    match config.model_type:
        case "qwen":
            return config.intermediate_size // 2
        case "mixtral":
            return config.intermediate_size * _experts_per_token(config)
        case "qwen2_moe" | "qwen3_moe":
            experts = _experts_per_token(config) * (config.moe_intermediate_size or 0)
            shared = config.shared_expert_intermediate_size or 0
            return max(experts + shared, config.intermediate_size if config.mlp_only_layers else 0)
        case _:
            return config.intermediate_size


def _experts_per_token(config: ModelConfig) -> int:
    if config.model_type == "mixtral":
        return config.num_experts_per_tok or 2
    return (config.num_experts_per_tok or 8) if config.expert_layers else 0


def _linear(config: ModelConfig, name: str, fan_in: int, fan_out: int, bias: bool = False) -> Linear:
    return Linear(
        name=name, in_features=fan_in, out_features=fan_out, bias=bias, layers=config.num_hidden_layers
    )


def _attention(config: ModelConfig, qkv_bias: bool, out_bias: bool, out: str = "o_proj") -> Iterator[Linear]:
    hidden, width = config.hidden_size, _head_width(config)
    queries, keys = config.num_attention_heads * width, config.key_value_heads * width
    yield _linear(config, "q_proj", hidden, queries, qkv_bias)
    yield _linear(config, "k_proj", hidden, keys, qkv_bias)
    yield _linear(config, "v_proj", hidden, keys, qkv_bias)
    yield _linear(config, out, queries, hidden, out_bias)


def _gated_mlp(config: ModelConfig, bias: bool = False) -> Iterator[Linear]:
    hidden, inner = config.hidden_size, config.intermediate_size
    yield _linear(config, "gate_proj", hidden, inner, bias)
    yield _linear(config, "up_proj", hidden, inner, bias)
    yield _linear(config, "down_proj", inner, hidden, bias)


def _norms(config: ModelConfig, per_layer: int = 2, bias: bool = False) -> Iterator[Vectors]:
    """Norms of the hidden size in each layer, and one that closes the model."""
    count = config.num_hidden_layers * per_layer + 1
    yield Vectors(elements=config.hidden_size, count=count * (2 if bias else 1))


def _head_norms(config: ModelConfig) -> Iterator[Vectors]:
    yield Vectors(elements=_head_width(config), count=2 * config.num_hidden_layers)


def _llama(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, config.attention_bias, config.attention_bias)
        yield from _gated_mlp(config, config.mlp_bias)

    return linears(), _norms(config)


def _mistral(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, False, False)
        yield from _gated_mlp(config)

    return linears(), _norms(config)


def _qwen2(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, True, False)
        yield from _gated_mlp(config)

    return linears(), _norms(config)


def _qwen3(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, config.attention_bias, config.attention_bias)
        yield from _gated_mlp(config)

    def vectors() -> Iterator[Vectors]:
        yield from _norms(config)
        yield from _head_norms(config)

    return linears(), vectors()


def _qwen(config: ModelConfig) -> _Layout:
    hidden, inner, bias = config.hidden_size, config.intermediate_size // 2, not config.no_bias
    width = config.num_attention_heads * _head_width(config)

    def linears() -> Iterator[Linear]:
        yield _linear(config, "attn.c_attn", hidden, 3 * width, True)
        yield _linear(config, "attn.c_proj", width, hidden, bias)
        yield _linear(config, "mlp.w1", hidden, inner, bias)
        yield _linear(config, "mlp.w2", hidden, inner, bias)
        yield _linear(config, "mlp.c_proj", inner, hidden, bias)

    return linears(), _norms(config)


def _gemma(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, config.attention_bias, config.attention_bias)
        yield from _gated_mlp(config)

    return linears(), _norms(config)


def _gemma2(config: ModelConfig) -> _Layout:
    return _gemma(config)[0], _norms(config, per_layer=4)


def _gemma3(config: ModelConfig) -> _Layout:
    def vectors() -> Iterator[Vectors]:
        yield from _norms(config, per_layer=4)
        yield from _head_norms(config)

    return _gemma(config)[0], vectors()


def _phi(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, True, True, out="dense")
        yield _linear(config, "fc1", config.hidden_size, config.intermediate_size, True)
        yield _linear(config, "fc2", config.intermediate_size, config.hidden_size, True)

    def vectors() -> Iterator[Vectors]:
        yield from _norms(config, per_layer=1, bias=True)
        if config.qk_layernorm:
            yield Vectors(elements=_head_width(config), count=4 * config.num_hidden_layers)

    return linears(), vectors()


def _phi3(config: ModelConfig) -> _Layout:
    hidden, inner, width = config.hidden_size, config.intermediate_size, _head_width(config)
    queries, keys = config.num_attention_heads * width, config.key_value_heads * width

    def linears() -> Iterator[Linear]:
        yield _linear(config, "qkv_proj", hidden, queries + 2 * keys)
        yield _linear(config, "o_proj", queries, hidden)
        yield _linear(config, "gate_up_proj", hidden, 2 * inner)
        yield _linear(config, "down_proj", inner, hidden)

    return linears(), _norms(config)


def _mixtral(config: ModelConfig) -> _Layout:
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    experts = config.num_local_experts or 8

    def linears() -> Iterator[Linear]:
        yield from _attention(config, False, False)
        yield _linear(config, "block_sparse_moe.gate", hidden, experts)
        for name, fan_in, fan_out in (("w1", hidden, inner), ("w2", inner, hidden), ("w3", hidden, inner)):
            yield Linear(
                name=f"experts.{name}",
                in_features=fan_in,
                out_features=fan_out,
                bias=False,
                layers=layers,
                copies=experts,
            )

    return linears(), _norms(config)


def _experts(config: ModelConfig) -> Iterator[Linear]:
    """MLPs of a Qwen mixture: dense ones, the router, experts, and the shared expert with its gate."""
    hidden, sparse = config.hidden_size, config.expert_layers
    dense, experts = config.num_hidden_layers - sparse, config.experts

    def mlp(prefix: str, inner: int, layers: int, copies: int) -> Iterator[Linear]:
        shapes = (("gate_proj", hidden, inner), ("up_proj", hidden, inner), ("down_proj", inner, hidden))
        for name, fan_in, fan_out in shapes:
            yield Linear(
                name=f"{prefix}{name}",
                in_features=fan_in,
                out_features=fan_out,
                bias=False,
                layers=layers,
                copies=copies,
            )

    def single(name: str, fan_out: int) -> Linear:
        return Linear(name=name, in_features=hidden, out_features=fan_out, bias=False, layers=sparse)

    if dense:
        yield from mlp("", config.intermediate_size, dense, 1)
    if sparse:
        yield single("mlp.gate", experts)
        yield from mlp("experts.", config.moe_intermediate_size or 0, sparse, experts)
    if sparse and config.shared_expert_intermediate_size:
        yield from mlp("shared_expert.", config.shared_expert_intermediate_size, sparse, 1)
        yield single("shared_expert_gate", 1)


def _qwen2_moe(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, config.qkv_bias, False)
        yield from _experts(config)

    return linears(), _norms(config)


def _qwen3_moe(config: ModelConfig) -> _Layout:
    def linears() -> Iterator[Linear]:
        yield from _attention(config, config.attention_bias, config.attention_bias)
        yield from _experts(config)

    return linears(), _qwen3(config)[1]


FAMILIES: dict[str, Callable[[ModelConfig], _Layout]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen": _qwen,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi": _phi,
    "phi3": _phi3,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
}
"""`model_type` values whose layers are counted, and what counts each."""
