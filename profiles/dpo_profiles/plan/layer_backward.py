"""The backward pass of a decoder layer, with the tensors that each operator makes and gives back."""

from __future__ import annotations

from dpo_profiles.plan.architecture import Linear
from dpo_profiles.plan.layer import FLOAT32, Layer
from dpo_profiles.plan.ledger import Ledger, Tensor
from dpo_profiles.plan.workload import Workload


class TrainedLayer(Layer):
    """A layer that is gone through backwards; checkpointed, it is computed again when it is first asked for.

    Methods give up the name of the gradient that they take, of an output, and return that of the input.
    """

    def __init__(self, workload: Workload, ledger: Ledger, *, first: bool = False) -> None:
        super().__init__(workload, ledger, keeps=not workload.checkpointing, first=first)
        self._reentrant = workload.zero3 is not None

    def backward(self, gradient: int) -> int:
        """Of the layer's output to its input; the residual's gradient is added to in place."""
        left = self._need() if self._reentrant or self.post_norms else []
        for branch, end, begin in (
            (self._mlp_backward, "MLP output norm", "MLP norm"),
            (self._attention_backward, "attention norm", "input norm"),
        ):
            inside = self.ledger.hold(gradient)
            if self.post_norms:
                inside = self.norm_backward(end, inside)
            self.ledger.drop(self.norm_backward(begin, branch(inside)))
        self.ledger.drop(*left)
        return gradient

    def norm_backward(self, name: str, gradient: int, width: int | None = None) -> int:
        """The norm's input gets a product with the norm's factor and one with its input, in float32."""
        ledger = self.ledger
        weighted = self.row("gradient", width)
        ledger.drop(gradient)
        exact = self.item == FLOAT32
        wide = ledger.hold(weighted) if exact else self.row("gradient of a norm", width, FLOAT32)
        ledger.drop(weighted)
        through, other = (self.row("gradient of a norm", width, FLOAT32) for _ in range(2))
        self._release(name)
        ledger.drop(wide, other)
        narrow = ledger.hold(through) if exact else self.row("gradient", width)
        ledger.drop(through)
        return narrow

    def all_kept(self, linear: Linear) -> None:
        """Non-reentrant checkpointing stops computing again once all that is kept is there."""
        again = self.keeps and self.workload.checkpointing and not self._reentrant
        if again and linear is self.linears["last"][0]:
            self.ledger.recording = False

    def _need(self) -> list[int]:
        """Compute a checkpointed layer again, the first time that something it keeps is asked for.

        Reentrant checkpointing goes backwards from the new output, which therefore stays: it is returned.
        """
        if self.keeps:
            return []
        self.keeps = True
        left = self.forward(self.ledger.put("layer input", 0, self.item))
        self.ledger.recording = True
        if self._reentrant:
            return [left]
        self.ledger.drop(left)
        return []

    def _release(self, operator: str) -> None:
        self.ledger.drop(*self.kept.pop(operator, []))

    def _linear_backward(self, linear: Linear, gradient: int, width: int | None = None) -> int:
        ledger, through = self.ledger, []
        if self.adapted(linear):
            wide = ledger.hold(gradient)
            if self.precise != self.item:
                ledger.drop(wide)
                wide = ledger.put("gradient of an adapter", linear.out_features, self.precise)
                if not self.workload.quantized:
                    # `lora.Linear` sums in the adapter's type, so the base's share is cast back.
                    ledger.drop(gradient)
                    gradient = self.row("gradient", linear.out_features)
            through = [self._adapter_backward(linear, wide)]
        if self.workload.full:
            self._need()
            wide = ledger.add(self._whole("weight gradient", linear))
            ledger.drop(wide)
            self._release(linear.name)
        weight = self.weight(linear, scales=1)
        entered = self.row("gradient", linear.in_features if width is None else width)
        ledger.drop(*weight, gradient, *through)
        return entered

    def _whole(self, label: str, linear: Linear) -> Tensor:
        return Tensor(label=label, width=linear.weights, item=self.item, per_token=False)

    def _adapter_backward(self, linear: Linear, gradient: int) -> int:
        ledger = self.ledger
        scaled = ledger.put("gradient of an adapter", linear.out_features, self.precise)
        ledger.drop(gradient)
        self._need()
        small = ledger.put("gradient of an adapter's inner product", self.workload.r, self.precise)
        self._release(f"{linear.name} B")
        ledger.drop(scaled)
        entered = ledger.put("gradient of an adapter's input", linear.in_features, self.precise)
        self._release(f"{linear.name} A")
        ledger.drop(small)
        if self.workload.dropout:
            masked = ledger.put("gradient of an adapter's input", linear.in_features, self.precise)
            self._release(f"{linear.name} dropout")
            ledger.drop(entered)
            entered = masked
        if self.precise == self.item:
            return entered
        narrow = self.row("gradient", linear.in_features)
        ledger.drop(entered)
        return narrow

    def _mlp_backward(self, gradient: int) -> int:
        ledger, inner, first = self.ledger, self.model.intermediate_size, self.linears["first"]
        joined = self.model.gated and len(first) == 1
        of_active = self._linear_backward(self.linears["last"][0], gradient, inner)
        self._need()
        through: list[int] = []
        of_other = 0
        if self.model.gated:
            of_product = of_active
            of_active, of_other = (self.row("gradient of a factor", inner) for _ in range(2))
            self._release("product")
            ledger.drop(of_product)
            if not joined:
                through = [self._linear_backward(first[1], of_other)]
        of_gate = self.row("gradient of the gate", inner)
        self._release("activation")
        ledger.drop(of_active)
        if joined:
            both = self.row("gradient of both factors", 2 * inner)
            ledger.drop(of_gate, of_other)
            of_gate = both
        of_normed = self._linear_backward(first[0], of_gate)
        ledger.drop(*through)
        return of_normed

    def _rows(self, count: int, width: int) -> list[int]:
        return [self.row("gradient", width) for _ in range(count)]

    def _eager_backward(self) -> list[int]:
        """Gradients of queries, keys and values, by way of all scores."""
        ledger, queries = self.ledger, self.model.query_size
        width = self.model.heads * self.workload.length_tokens
        exact = self.item == FLOAT32
        narrow, of_values = self.row("gradient of scores", width), self.row("gradient", queries)
        self._release("weighted values")
        wide = ledger.hold(narrow) if exact else ledger.put("gradient of scores", width, FLOAT32)
        ledger.drop(narrow)
        through = ledger.put("gradient of scores", width, FLOAT32)
        self._release("softmax")
        ledger.drop(wide)
        back = ledger.hold(through) if exact else self.row("gradient of scores", width)
        ledger.drop(through)
        scaled = self.row("gradient of scores", width)
        ledger.drop(back)
        of = self._rows(2, queries)
        ledger.drop(scaled)
        return [*of, of_values]

    def _attention_backward(self, gradient: int) -> int:
        ledger, queries, keys = self.ledger, self.model.query_size, self.model.key_value_size
        of_attended = self._linear_backward(self.linears["out"][0], gradient)
        of = self._eager_backward() if self.workload.eager_attention else self._rows(3, queries)
        self._release("attention")
        ledger.drop(of_attended)
        if keys != queries:
            for place in (2, 1):
                summed = self.row("gradient", keys)
                ledger.drop(of[place])
                of[place] = summed
        for place, name, width in ((1, "keys", keys), (0, "queries", queries)):
            turned, other = self.row("gradient", width), self.row("gradient", width)
            ledger.drop(of[place], other)
            of[place] = self.norm_backward(f"{name} norm", turned, width) if self.head_norms else turned
        inputs = self.linears["in"]
        if len(inputs) == 1:
            joined = self.row("gradient", queries + 2 * keys)
            ledger.drop(*of)
            return self._linear_backward(inputs[0], joined)
        found = [self._linear_backward(inputs[place], of[place]) for place in (2, 1, 0)]
        ledger.drop(*found[1:])
        return found[0]
