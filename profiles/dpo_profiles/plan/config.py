"""The part of a Hugging Face config.json that sizes depend on."""

from __future__ import annotations

import msgspec


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder's config; None is a key that is absent, for which the family's own default counts."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    kv_channels: int | None = None
    """Width of a head of Qwen (1)."""
    no_bias: bool = True
    """Of Qwen (1): whether its layers but c_attn have no bias."""
    qk_layernorm: bool = False
    """Of Phi (1, 2): whether queries and keys are normed."""
    num_local_experts: int | None = None
    """Of Mixtral, and of Qwen mixtures that transformers 5 has written."""
    num_experts: int | None = None
    """Of the Qwen mixtures."""
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    shared_expert_intermediate_size: int | None = None
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    qkv_bias: bool = True
    """Of Qwen2-MoE."""

    @property
    def key_value_heads(self) -> int:
        """Key and value heads; as many as query heads where the config says nothing."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """Width of one head, an even part of the hidden size where the config says nothing."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def experts(self) -> int:
        """In one layer of a mixture; 0 where the config names none."""
        return self.num_experts or self.num_local_experts or 0

    @property
    def expert_layers(self) -> int:
        """Decoder layers with experts (`Qwen2MoeDecoderLayer` in transformers)."""
        return sum(
            self.experts > 0
            and layer not in self.mlp_only_layers
            and (layer + 1) % self.decoder_sparse_step == 0
            for layer in range(self.num_hidden_layers)
        )
