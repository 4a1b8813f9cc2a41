"""One decoder layer of Hugging Face's in torch's operators, forward, with the tensors that each of them makes.

Linear layers are peft's `lora.Linear` and `lora.Linear4bit`, which cast their input to the adapter's type and the
product back. Attention is counted as CUDA's memory-efficient kernel keeps it, which takes a batch that has padding:
keys and values are repeated to all heads, and the mask is in the arithmetic's type. What a kernel allocates inside
itself cannot be seen from outside and is not counted. Experts are counted as one MLP of the width that a token goes
through.
"""

from __future__ import annotations

from dpo_profiles.plan.architecture import Linear
from dpo_profiles.plan.ledger import Ledger, Tensor
from dpo_profiles.plan.nf4 import BLOCK_WEIGHTS
from dpo_profiles.plan.workload import Workload

FLOAT32 = 4
"""Bytes of an element in norms, softmax and sums of logarithms."""
POST_NORMS = 4
"""Norms of a layer that also normalises what its two branches give (Gemma 2 and 3); others have fewer."""
ROLES = {
    "in": ("q_proj", "k_proj", "v_proj", "qkv_proj", "attn.c_attn"),
    "out": ("o_proj", "dense", "attn.c_proj"),
    "first": ("gate_proj", "up_proj", "gate_up_proj", "fc1", "mlp.w1", "mlp.w2", "experts.w1", "experts.w3"),
    "last": ("down_proj", "mlp.c_proj", "fc2", "experts.w2"),
}
"""What a linear layer does, by the end of its path; routers are left out."""


class Layer:
    """One decoder layer.

    Methods that take a tensor's number leave its name to the caller unless they say that they give it up.
    """

    def __init__(self, workload: Workload, ledger: Ledger, *, keeps: bool, first: bool = False) -> None:
        """`first`: whether its input needs no gradient, so that what only that gradient needs is not kept."""
        self.workload, self.model, self.ledger = workload, workload.model, ledger
        self.keeps, self.first = keeps, first
        self.item = workload.compute_bytes
        self.precise = workload.adapter_input_bytes
        self.kept: dict[str, list[int]] = {}
        """What each operator saves for its backward pass."""
        self.linears = {
            role: [linear for linear in self.model.linears if any(map(linear.is_target, names))]
            for role, names in ROLES.items()
        }
        self._targets = {linear for name in workload.targets for linear in self.model.targets(name)}
        norms = sum(v.count for v in self.model.vectors if v.elements == self.model.hidden_size)
        self.post_norms = norms >= POST_NORMS * self.model.layers
        head = self.model.query_size // max(1, self.model.heads)
        self.head_norms = any(v.elements == head != self.model.hidden_size for v in self.model.vectors)

    def keep(self, operator: str, *numbers: int) -> None:
        """Save tensors for an operator's backward pass, where there will be one."""
        if self.keeps:
            self.kept.setdefault(operator, []).extend(self.ledger.hold(number) for number in numbers)

    def row(self, label: str, width: int | None = None, item: int | None = None) -> int:
        """A tensor of the arithmetic's type; a hidden row where no width is said."""
        return self.ledger.put(label, self.model.hidden_size if width is None else width, item or self.item)

    def adapted(self, linear: Linear) -> bool:
        """Whether an adapter is on it; those on experts are not counted."""
        return linear in self._targets and linear.copies == 1

    def forward(self, entered: int) -> int:
        """From the layer's input, whose name is given up at the end, to its output."""
        ledger = self.ledger
        normed = self.norm("input norm", entered)
        attended = self._branch_end("attention norm", self._attention(normed))
        ledger.drop(normed)
        middle = self.row("residual")
        ledger.drop(attended)
        normed = self.norm("MLP norm", middle)
        product = self._branch_end("MLP output norm", self._mlp(normed))
        ledger.drop(normed)
        left = self.row("layer output")
        ledger.drop(middle, product, entered)
        return left

    def _branch_end(self, name: str, product: int) -> int:
        if not self.post_norms:
            return product
        normed = self.norm(name, product)
        self.ledger.drop(product)
        return normed

    def norm(self, name: str, entered: int, width: int | None = None) -> int:
        """RMSNorm: its input in float32 is kept, and its output goes on."""
        ledger = self.ledger
        exact = self.item == FLOAT32
        wide = ledger.hold(entered) if exact else self.row("norm inputs", width, FLOAT32)
        if not (self.first and name == "input norm"):
            self.keep(name, wide)
        ledger.drop(self.row("squares of the norm", width, FLOAT32))
        scaled = self.row("normalised", width, FLOAT32)
        ledger.drop(wide)
        narrow = ledger.hold(scaled) if exact else self.row("normalised", width)
        normed = self.row("norm outputs", width)
        ledger.drop(narrow, scaled)
        return normed

    def linear(self, linear: Linear, entered: int, label: str, width: int | None = None) -> int:
        """A linear layer with its adapter; `width` is its output's where experts are counted as one."""
        ledger, load = self.ledger, self.workload
        out = linear.out_features if width is None else width
        if load.full:
            self.keep(linear.name, entered)
        weight = self.weight(linear)
        result = self.row(label, out)
        ledger.drop(*weight)
        if not self.adapted(linear):
            return result
        if load.quantized:
            # peft copies the product before it adds to it.
            clone = self.row(label, out)
            ledger.drop(result)
            result = clone
        exact = self.precise == self.item
        cast = (
            ledger.hold(entered) if exact else ledger.put("adapter inputs", linear.in_features, self.precise)
        )
        scaled = self._adapter(linear, cast, out)
        total = self._sum(result, scaled, out, label)
        ledger.drop(cast)
        return total

    def _adapter(self, linear: Linear, cast: int, out: int) -> int:
        """From the input in the adapter's type to the scaled product of its two matrices."""
        ledger, load = self.ledger, self.workload
        fed = ledger.hold(cast)
        if load.dropout and self.keeps:
            ledger.drop(fed)
            fed = ledger.put("adapter inputs after dropout", linear.in_features, self.precise)
            mask = ledger.put("dropout masks", linear.in_features, 1)
            if not (self.first and linear in self.linears["in"]):
                self.keep(f"{linear.name} dropout", mask)
            ledger.drop(mask)
        self.keep(f"{linear.name} A", fed)
        small = ledger.put("inner products of adapters", load.r, self.precise)
        self.keep(f"{linear.name} B", small)
        ledger.drop(fed)
        self.all_kept(linear)
        large = ledger.put("adapter product", out, self.precise)
        ledger.drop(small)
        scaled = ledger.put("scaled adapter product", out, self.precise)
        ledger.drop(large)
        return scaled

    def all_kept(self, linear: Linear) -> None:
        """Called where `linear` has kept what it keeps."""

    def _sum(self, result: int, scaled: int, out: int, label: str) -> int:
        """The base's product, whose name is given up, and the adapter's, too.

        `lora.Linear4bit` casts the adapter's product before the sum, `lora.Linear` the sum.
        """
        ledger = self.ledger
        if self.precise == self.item:
            total = self.row(label, out)
            ledger.drop(result, scaled)
        elif self.workload.quantized:
            cast = self.row("adapter product", out)
            ledger.drop(scaled)
            total = self.row(label, out)
            ledger.drop(result, cast)
        else:
            wide = ledger.put(label, out, self.precise)
            ledger.drop(result, scaled)
            total = self.row(label, out)
            ledger.drop(wide)
        return total

    def weight(self, linear: Linear, scales: int = 2) -> list[int]:
        """A quantised weight brought back to the arithmetic's type, and its scales brought back to float32.

        `scales`: how often they live: before and after their offset is added, in bitsandbytes' CUDA product.
        """
        if not self.workload.quantized or linear.plain:
            return []
        tensors = [("weight brought back", linear.weights, self.item)]
        if self.workload.double_quantization:
            tensors.insert(0, ("scales brought back", scales * -(-linear.weights // BLOCK_WEIGHTS), FLOAT32))
        return [self.ledger.add(Tensor(label=a, width=b, item=c, per_token=False)) for a, b, c in tensors]

    def _attention(self, normed: int) -> int:
        ledger, model = self.ledger, self.model
        queries, keys, values = self._projected(normed)
        widths = {"queries": model.query_size, "keys": model.key_value_size}
        turned = {}
        for name, number in (("queries", queries), ("keys", keys)):
            entered = (
                self.norm(f"{name} norm", number, widths[name]) if self.head_norms else ledger.hold(number)
            )
            by_cosine, half, by_sine = (self.row(f"turning {name}", widths[name]) for _ in range(3))
            ledger.drop(half)
            turned[name] = self.row(name, widths[name])
            ledger.drop(by_cosine, by_sine, entered)
        ledger.drop(queries, keys)
        out = self._attended(turned["queries"], turned["keys"], values)
        projected = self.linear(self.linears["out"][0], out, "attention output")
        ledger.drop(out, *turned.values(), values)
        return projected

    def _projected(self, normed: int) -> list[int]:
        """Queries, keys and values: views of one tensor where one layer projects all three."""
        first = [self.linear(linear, normed, "queries, keys and values") for linear in self.linears["in"]]
        return first if len(first) > 1 else [first[0], self.ledger.hold(first[0]), self.ledger.hold(first[0])]

    def _attended(self, queries: int, keys: int, values: int) -> int:
        ledger, width = self.ledger, self.model.query_size
        pair = [ledger.hold(keys), ledger.hold(values)]
        if self.model.key_value_size != width:
            ledger.drop(*pair)
            pair = [self.row("repeated keys and values", width) for _ in range(2)]
        if self.workload.eager_attention:
            out = self._eager(queries, pair)
        else:
            mask = self.row("masks of attention", self.workload.length_tokens)
            out = self.row("attended", width)
            sums = ledger.put("log-sums", self.model.heads, FLOAT32)
            self.keep("attention", queries, *pair, mask, out, sums)
            ledger.drop(mask, sums)
        ledger.drop(*pair)
        return out

    def _eager(self, queries: int, pair: list[int]) -> int:
        """All scores: scaled, masked, and their softmax in float32 and in the arithmetic's type."""
        ledger, width = self.ledger, self.model.heads * self.workload.length_tokens
        scores = self.row("scores", width)
        for _ in ("scaled", "masked"):
            changed = self.row("scores", width)
            ledger.drop(scores)
            scores = changed
        exact = self.item == FLOAT32
        wide = ledger.hold(scores) if exact else ledger.put("scores", width, FLOAT32)
        softmax = ledger.put("softmax of scores", width, FLOAT32)
        ledger.drop(scores, wide)
        narrow = ledger.hold(softmax) if exact else self.row("softmax of scores", width)
        self.keep("attention", queries, pair[0])
        self.keep("softmax", softmax)
        self.keep("weighted values", narrow, pair[1])
        ledger.drop(softmax)
        out = self.row("attended", self.model.query_size)
        ledger.drop(narrow)
        return out

    def _mlp(self, normed: int) -> int:
        """Gate, activation and product; without a gate the activation alone."""
        ledger, inner, first = self.ledger, self.model.intermediate_size, self.linears["first"]
        joined = self.model.gated and len(first) == 1
        gate = self.linear(first[0], normed, "gates", None if joined else inner)
        active = self.row("activations", inner)
        self.keep("activation", gate)
        # One layer may project both factors: views of its product.
        other = ledger.hold(gate) if joined else 0
        ledger.drop(gate)
        product = active
        if self.model.gated:
            other = other or self.linear(first[1], normed, "other factors", inner)
            product = self.row("MLP product", inner)
            self.keep("product", active, other)
            ledger.drop(active, other)
        last = self.linears["last"][0]
        if not self.adapted(last) and not self.workload.full:
            self.all_kept(last)
        down = self.linear(last, product, "MLP output", self.model.hidden_size)
        ledger.drop(product)
        return down
