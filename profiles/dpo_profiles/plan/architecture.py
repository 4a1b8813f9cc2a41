"""A decoder's tensors, counted from its config.json."""

from __future__ import annotations

import msgspec

FAMILIES = ("llama", "qwen2")
"""`model_type` values whose layers are counted here."""


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a Hugging Face config.json that sizes depend on, with the library's own defaults."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False


class Linear(msgspec.Struct, frozen=True, kw_only=True):
    """A linear layer inside a decoder layer; its weight is [out_features, in_features]."""

    name: str
    in_features: int
    out_features: int
    bias: bool

    @property
    def weights(self) -> int:
        """Number of weights without the bias."""
        return self.in_features * self.out_features


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a model, in elements."""

    name: str
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    heads: int
    layers: int
    linears: tuple[Linear, ...]
    """Of one decoder layer; all of them are quantised, the embeddings and the head are not."""
    norms_per_layer: int
    """Vectors of hidden_size in one decoder layer; one more closes the model."""
    tied: bool
    """Whether the head is the embedding matrix."""

    @property
    def embedding_matrices(self) -> int:
        """[vocab_size, hidden_size] matrices that exist: the embedding, and an untied head."""
        return 1 if self.tied else 2

    @property
    def parameters(self) -> int:
        """All parameters, tied ones counted once."""
        linears = sum(linear.weights + linear.out_features * linear.bias for linear in self.linears)
        layer = linears + self.norms_per_layer * self.hidden_size
        embeddings = self.embedding_matrices * self.vocab_size * self.hidden_size
        return self.layers * layer + embeddings + self.hidden_size


def architecture_of(name: str, config: ModelConfig) -> Architecture:
    """Tensors of a Llama or Qwen2 decoder.

    Source: `LlamaAttention`, `LlamaMLP`, `Qwen2Attention` and `Qwen2MLP` in transformers: Qwen2 has
    biases on q, k and v only, Llama where `attention_bias` or `mlp_bias` says so; both have two
    RMS norms a layer and one at the end.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    head = config.head_dim or hidden // config.num_attention_heads
    queries = config.num_attention_heads * head
    keys = (config.num_key_value_heads or config.num_attention_heads) * head
    qwen = config.model_type == "qwen2"
    qkv_bias = qwen or config.attention_bias
    out_bias = config.attention_bias and not qwen
    mlp_bias = config.mlp_bias and not qwen
    shapes = (
        ("q_proj", hidden, queries, qkv_bias),
        ("k_proj", hidden, keys, qkv_bias),
        ("v_proj", hidden, keys, qkv_bias),
        ("o_proj", queries, hidden, out_bias),
        ("gate_proj", hidden, inner, mlp_bias),
        ("up_proj", hidden, inner, mlp_bias),
        ("down_proj", inner, hidden, mlp_bias),
    )
    return Architecture(
        name=name,
        hidden_size=hidden,
        intermediate_size=inner,
        vocab_size=config.vocab_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        linears=tuple(
            Linear(name=linear, in_features=fan_in, out_features=fan_out, bias=bias)
            for linear, fan_in, fan_out, bias in shapes
        ),
        norms_per_layer=2,
        tied=config.tie_word_embeddings,
    )
