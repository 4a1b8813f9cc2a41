"""A decoder's tensors: what a family's layout comes to, in elements."""

from __future__ import annotations

import msgspec


class Linear(msgspec.Struct, frozen=True, kw_only=True):
    """Equal linear layers of a model; the weight of one is [out_features, in_features]."""

    name: str
    """Path inside a decoder layer, as the library names it without prefix: `q_proj`, `mlp.c_proj`."""
    in_features: int
    out_features: int
    bias: bool
    layers: int
    """Decoder layers that have it."""
    copies: int = 1
    """In each of these layers: the experts of a mixture."""
    plain: bool = False
    """Whether it is held as a parameter and not as a layer, so that nothing quantises or adapts it."""

    @property
    def weights(self) -> int:
        """Number of weights of one, without the bias."""
        return self.in_features * self.out_features

    @property
    def count(self) -> int:
        """In the whole model."""
        return self.layers * self.copies

    def is_target(self, target: str) -> bool:
        """Whether PEFT's `target_modules` entry means this layer: its name, or the end of its path."""
        return self.name == target or self.name.endswith(f".{target}")


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """Equal small parameters: norms' weights and biases."""

    elements: int
    count: int
    """In the whole model."""


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a model, in elements."""

    name: str
    hidden_size: int
    intermediate_size: int
    """Width of the MLP that a token goes through, all its experts together."""
    query_size: int
    """Heads times their width."""
    key_value_size: int
    """Key heads times their width; values are as wide."""
    vocab_size: int
    heads: int
    layers: int
    linears: tuple[Linear, ...]
    """All of them are quantised but those that are plain; the embeddings and the head are not."""
    vectors: tuple[Vectors, ...]
    tied: bool
    """Whether the head is the embedding matrix."""
    head_bias: bool = False
    experts_per_token: int = 0
    """Experts that a token goes through; 0 is an MLP without experts."""
    gated: bool = True
    """Whether the MLP multiplies a gate with a second product."""

    @property
    def is_round(self) -> bool:
        """Whether only the number of parameters is known."""
        return self.layers == 0

    @property
    def embedding_matrices(self) -> int:
        """[vocab_size, hidden_size] matrices that exist: the embedding, and an untied head."""
        return 1 if self.tied else 2

    @property
    def embedding_parameters(self) -> int:
        """Embedding and untied head."""
        return self.embedding_matrices * self.vocab_size * self.hidden_size + self.vocab_size * self.head_bias

    @property
    def linear_weights(self) -> int:
        """Weights of all linear layers, without biases, embeddings and head."""
        return sum(linear.weights * linear.count for linear in self.linears)

    @property
    def parameters(self) -> int:
        """All parameters, tied ones counted once."""
        biases = sum(linear.out_features * linear.bias * linear.count for linear in self.linears)
        vectors = sum(vector.elements * vector.count for vector in self.vectors)
        return self.linear_weights + biases + vectors + self.embedding_parameters

    def targets(self, name: str) -> tuple[Linear, ...]:
        """The linear layers that one `target_modules` entry means; empty where the model has none."""
        return tuple(linear for linear in self.layered if linear.is_target(name))

    @property
    def layered(self) -> tuple[Linear, ...]:
        """Linear layers that are layers of their own."""
        return tuple(linear for linear in self.linears if not linear.plain)

    @property
    def plain(self) -> tuple[Linear, ...]:
        """Those that are held as parameters."""
        return tuple(linear for linear in self.linears if linear.plain)


def with_fused_experts(model: Architecture) -> Architecture:
    """The model as transformers 5 makes it: all experts of a layer in one parameter, and routers as parameters too.

    Source: transformers 5.23, models/mixtral/modeling_mixtral.py (`MixtralExperts`, `MixtralTopKRouter`) and the
    Qwen mixtures'. bitsandbytes and PEFT replace `nn.Linear` alone.
    """
    routers = ("block_sparse_moe.gate", "mlp.gate")
    linears = (
        msgspec.structs.replace(linear, plain=linear.copies > 1 or linear.name in routers)
        for linear in model.linears
    )
    return msgspec.structs.replace(model, linears=tuple(linears))


def round_architecture(name: str, parameters: int) -> Architecture:
    """A model of which only the number of parameters is known: no layer, no width, and so no activations."""
    weights = Linear(name="weights", in_features=1, out_features=parameters, bias=False, layers=1)
    return Architecture(
        name=name,
        hidden_size=0,
        intermediate_size=0,
        query_size=0,
        key_value_size=0,
        vocab_size=0,
        heads=0,
        layers=0,
        linears=(weights,),
        vectors=(),
        tied=False,
    )
